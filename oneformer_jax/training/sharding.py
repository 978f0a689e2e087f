"""One mesh, one data axis: where parameters and batches live."""

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from oneformer_jax.errors import OneFormerError
from oneformer_jax.losses.assignment import Pairs

DATA_AXIS = "data"


def make_mesh(devices: int | Sequence[int]) -> Mesh:
    """A one-dimensional mesh over so many devices, or over those of these indices.

    Raises OneFormerError if there are fewer devices.
    """
    indices = range(devices) if isinstance(devices, int) else devices
    found = available_devices(max(indices) + 1)
    missing = [index for index in indices if index >= len(found)]
    if missing:
        raise OneFormerError(
            f"there is no device {missing[0]}: found {len(found)} ({found[0].platform}), counted from 0",
            hint="choose others, or make more visible (CUDA_VISIBLE_DEVICES)",
        )
    return Mesh(np.array([found[index] for index in indices]), (DATA_AXIS,))


def available_devices(wanted: int) -> list[jax.Device]:
    """The devices that there are; a processor makes `wanted` of itself, but one for each of its cores at most."""
    _split_processor(wanted)
    return jax.devices()


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
