"""One mesh, one data axis: where parameters and batches live."""

import os
from contextlib import suppress
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from oneformer_jax.errors import OneFormerError
from oneformer_jax.losses.assignment import Pairs

DATA_AXIS = "data"


def make_mesh(num_devices: int) -> Mesh:
    """A one-dimensional mesh over the first `num_devices` devices; a processor makes one for each of its cores at most.

    Raises OneFormerError if there are fewer devices.
    """
    _split_processor(num_devices)
    devices = jax.devices()
    if num_devices > len(devices):
        raise OneFormerError(
            f"train.num_gpus is {num_devices}, found {len(devices)} device(s) ({devices[0].platform})",
            hint=f"set train.num_gpus to 1..{len(devices)}",
        )
    return Mesh(np.array(devices[:num_devices]), (DATA_AXIS,))


def _split_processor(num_devices: int) -> None:
    """On CPU two devices of one core each are faster than one of two cores. Without effect once JAX has started."""
    if num_devices > 1:
        with suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", min(num_devices, os.cpu_count() or 1))


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis is split over the data axis."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """This process's part of a global batch (NumPy, leading axis first) as global arrays."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, array), batch)


def put_pairs(pairs: Pairs, mesh: Mesh) -> Pairs:
    """Matched pairs of this process's images: groups, one a device, are split over the data axis."""
    by_layer = NamedSharding(mesh, PartitionSpec(None, DATA_AXIS))
    query = jax.make_array_from_process_local_data(by_layer, pairs.query)
    return Pairs(query, *put_batch((pairs.image, pairs.target), mesh))


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """The same values on every device."""
    return jax.device_put(tree, replicated(mesh))
