"""The operations of `models.ops` as GPUs compute them."""

from jax.sharding import Mesh

from oneformer_jax.models.depthwise import grouped_convolution
from oneformer_jax.models.gpu.attention import KernelAttention
from oneformer_jax.models.gpu.deformable_attention import gathers_at_once
from oneformer_jax.models.ops import Ops


def ops_of_gpus(mesh: Mesh) -> Ops:
    """For the devices of `mesh`, which share the images of a batch."""
    return Ops(KernelAttention(mesh), deformable_attention=gathers_at_once, depthwise=grouped_convolution)
