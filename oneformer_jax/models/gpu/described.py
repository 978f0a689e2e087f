"""GPUs that are not there: XLA's compiler for CUDA needs none where it is told what the GPU is."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # who only asks for the name needs no JAX
    from jax.sharding import Mesh

NAME = "NVIDIA H100 80GB HBM3"
OF_A_HOST = 8
"""GPUs of a host."""
_DESCRIPTION = f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84929347584
  cuda_compute_capability {{ major: 9 }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 13 }}
device_description_str: "{NAME}"
"""


def described_h100s(count: int, axis: str) -> "Mesh":
    """A mesh along `axis` over so many H100s, eight in a host, to compile for.

    It needs JAX's plugin for CUDA and no driver. Raises RuntimeError where the plugin is not installed.
    """
    from jax.experimental import topologies
    from jax.sharding import Mesh

    hosts = max(1, count // OF_A_HOST)
    topology = f"1x{hosts}x{count // hosts}"
    found: Any = topologies.get_topology_desc(platform="cuda", target_config=_DESCRIPTION, topology=topology)
    return Mesh(np.array(found.devices), (axis,))
