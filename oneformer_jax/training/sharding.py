"""One mesh of devices: where parameters, optimizer state and batches live.

A batch is split over all of them. Parameters and what is shaped like them (moments, gradients) are whole on every
device (`ddp`), split over all too (`fsdp`), or split over those of a host and the same on every host (`hsdp`); then a
step gathers each parameter where it is used, and again for the backward pass. Nothing of this is known to the model.
"""

import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Literal, TypeVar, get_args

import jax
import numpy as np
from jax.extend.core import Primitive
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from oneformer_jax.errors import OneFormerError
from oneformer_jax.losses.matching import Pairs
from oneformer_jax.models.oneformer import Params
from oneformer_jax.models.precision import Kernel
from oneformer_jax.models.remat import Remat, policy

T = TypeVar("T")

HOST_AXIS, DATA_AXIS = "host", "data"
"""Of a mesh: its hosts, which it may leave out, and the devices, of a host where it has hosts."""
Strategy = Literal["ddp", "fsdp", "hsdp"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
SMALLEST_SPLIT = 1024
"""Arrays of fewer entries stay whole: to gather them takes longer than it saves memory."""


def make_mesh(devices: int | Sequence[int]) -> Mesh:
    """A one-dimensional mesh over so many devices of each process, or over those of these indices, process by process.

    Raises OneFormerError if this process has fewer devices, or another one has a different number.
    """
    indices = range(devices) if isinstance(devices, int) else devices
    available_devices(max(indices) + 1)
    chosen = []
    for process in range(jax.process_count()):
        found = [device for device in jax.devices() if device.process_index == process]
        missing = [index for index in indices if index >= len(found)]
        if missing:
            where = f" on process {process}" if jax.process_count() > 1 else ""
            raise OneFormerError(
                f"there is no device {missing[0]}{where}: found {len(found)} ({found[0].platform}), counted from 0",
                hint="choose other devices, or make more visible (CUDA_VISIBLE_DEVICES)",
            )
        chosen += [found[index] for index in indices]
    return Mesh(np.array(chosen), (DATA_AXIS,))


def by_host(mesh: Mesh, hosts: int) -> Mesh:
    """The same devices in so many rows, one a host: a host's processes follow each other."""
    return Mesh(mesh.devices.reshape(hosts, -1), (HOST_AXIS, DATA_AXIS))


def local_mesh(mesh: Mesh) -> Mesh:
    """The devices of `mesh` that this process has."""
    return Mesh(np.array(mesh.local_devices), (DATA_AXIS,))


def available_devices(wanted: int) -> list[jax.Device]:
    """The devices of this process; a processor makes `wanted` of itself, but one for each of its cores at most, unless
    JAX_NUM_CPU_DEVICES or XLA_FLAGS have divided it, or JAX has started.

    On CPU two devices of one core each are faster than one of two cores.
    """
    divided = "JAX_NUM_CPU_DEVICES" in os.environ or "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if wanted > 1 and not divided:
        with suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", min(wanted, os.cpu_count() or 1))
    return jax.local_devices()


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """The axis of images, by default the leading one, is split over all devices."""
    return _split(mesh, axis, mesh.axis_names)


def _split(mesh: Mesh, axis: int, over: tuple[str, ...]) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, over if len(over) > 1 else over[0]))


def state_sharding(shape: tuple[int, ...], mesh: Mesh, strategy: Strategy) -> NamedSharding:
    """Where a parameter of this shape lives, and what is shaped like it.

    `fsdp` splits the largest axis that the devices divide evenly, of equal ones the last; `hsdp` does so with the
    devices of a host.
    """
    if strategy == "ddp" or math.prod(shape) < SMALLEST_SPLIT:
        return replicated(mesh)
    over = mesh.axis_names if strategy == "fsdp" else (DATA_AXIS,)
    parts = math.prod(mesh.shape[name] for name in over)
    even = [axis for axis, size in enumerate(shape) if size % parts == 0]
    if not even:
        return replicated(mesh)
    return _split(mesh, max(even, key=lambda axis: (shape[axis], axis)), over)


def state_shardings(tree: PyTree, mesh: Mesh, strategy: Strategy) -> PyTree:
    """`state_sharding` of every leaf of a tree of arrays or shapes."""
    return jax.tree.map(lambda leaf: state_sharding(leaf.shape, mesh, strategy), tree)


def constrained(tree: PyTree, mesh: Mesh, strategy: Strategy) -> PyTree:
    """Inside jit: `tree`, placed as `state_sharding` says."""
    return jax.lax.with_sharding_constraint(tree, state_shardings(tree, mesh, strategy))


def gathered(params: Params, mesh: Mesh, strategy: Strategy) -> Params:
    """Inside jit: the whole parameters on every device. Wrap what uses them into `without_gathered`.

    Both ways are constraints, so that XLA splits nothing but the images: left alone, it would split what a layer
    computes along with its parameters, and send activations around. Of a `Kernel` only what is multiplied is gathered.
    """

    def gather(leaf: jax.Array) -> jax.Array:
        if state_sharding(leaf.shape, mesh, strategy).is_fully_replicated:
            return leaf
        return jax.lax.with_sharding_constraint(leaf, replicated(mesh))

    def used(leaf: jax.Array | Kernel) -> jax.Array | Kernel:
        return Kernel(gather(leaf.rounded), leaf.learned) if isinstance(leaf, Kernel) else gather(leaf)

    return jax.tree.map(used, params, is_leaf=lambda leaf: isinstance(leaf, Kernel))


def without_gathered(function: Callable[..., T], remat: Remat) -> Callable[..., T]:
    """The function, whose backward pass gathers parameters once more instead of keeping all of them whole.

    What its blocks keep by `remat` has to be said again: the policy outside decides for what is inside, too.
    """
    return jax.checkpoint(function, policy=policy(remat) or _is_kept)


def _is_kept(primitive: Primitive, *_: object, **__: object) -> bool:
    return primitive.name != "sharding_constraint"


def images_split(tree: PyTree, images: int, mesh: Mesh) -> PyTree:
    """Inside jit: `tree`, whose arrays of one row an image are split over the devices.

    What does not depend on the images, like masks of dropout, XLA would otherwise keep for all of them on every device.
    """

    def split(leaf: jax.Array) -> jax.Array:
        by_image = leaf.shape[:1] == (images,)
        return jax.lax.with_sharding_constraint(leaf, batch_sharding(mesh)) if by_image else leaf

    return jax.tree.map(split, tree)


def put_batch(batch: PyTree, mesh: Mesh) -> PyTree:
    """This process's part of a global batch (NumPy, leading axis first) as global arrays."""
    return jax.tree.map(lambda array: _put_part(array, mesh, 0), batch)


def put_pairs(pairs: Pairs, mesh: Mesh) -> Pairs:
    """Matched pairs of this process's images: groups, one a device, are split over the devices."""
    return Pairs(_put_part(pairs.query, mesh, 1), *put_batch((pairs.image, pairs.target), mesh))


def _put_part(array: np.ndarray, mesh: Mesh, axis: int) -> jax.Array:
    # jax.make_array_from_process_local_data does it too, but as an implicit transfer where there are several processes.
    devices = mesh.local_devices
    parts = [
        jax.device_put(part, device) for part, device in zip(np.split(array, len(devices), axis), devices, strict=True)
    ]
    shape = list(array.shape)
    shape[axis] *= mesh.size // len(devices)
    return jax.make_array_from_single_device_arrays(tuple(shape), batch_sharding(mesh, axis), parts)


def own_part(array: jax.Array, axis: int) -> tuple[np.ndarray, slice]:
    """What this process's devices hold of an array that is split along `axis`, and where that lies on the axis."""
    count = array.shape[axis]
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[axis].indices(count)[0])
    first, last = shards[0].index[axis].indices(count), shards[-1].index[axis].indices(count)
    # One call: it starts all copies before it waits for one. Alone it is an explicit transfer, which a guard lets pass.
    parts = jax.device_get([shard.data for shard in shards])
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis), slice(first[0], last[1])


def put_replicated(tree: PyTree, mesh: Mesh) -> PyTree:
    """The same values on every device; every process must bring them."""
    return put(tree, jax.tree.map(lambda _: replicated(mesh), tree))


def put(tree: PyTree, shardings: PyTree) -> PyTree:
    """Values that every process holds whole, as global arrays of these shardings (a tree like `tree`)."""

    def place(leaf: jax.Array | np.ndarray, sharding: NamedSharding) -> jax.Array:
        if sharding.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        values = np.asarray(jax.device_get(leaf))
        return jax.make_array_from_callback(values.shape, sharding, lambda index: values[index])

    return jax.tree.map(place, tree, shardings)


def whole_on_each_process(tree: PyTree, mesh: Mesh) -> PyTree:
    """Global arrays, whole on every device, as arrays of this process's devices: it can then compute alone."""
    here = replicated(local_mesh(mesh))
    copies = jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(tree)

    def own(array: jax.Array) -> jax.Array:
        parts = [shard.data for shard in array.addressable_shards]
        return jax.make_array_from_single_device_arrays(array.shape, here, parts)

    return jax.tree.map(own, copies)
