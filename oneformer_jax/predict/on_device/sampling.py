"""Mask logits at the original size, for pictures of several sizes in arrays of one shape.

The three steps of `postprocess.tiles` mix a few logits along each axis. Which ones, and how much of them, the sizes
say: these tables go to the device, filled up to a multiple of `ROOM` pixels, so pictures of similar sizes share a
program.

Axes: b images, q queries, h w mask logits, y x pixels of a picture, t taps.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float32, Int32

from oneformer_jax.data.geometry import Geometry, Size
from oneformer_jax.postprocess.tiles import axis_of

ROOM = 128
STRIP = 32
"""Rows or columns that are computed together: their logits of all queries are what the memory must hold."""


class Mix(NamedTuple):
    """Along one axis, the logits that each pixel mixes; with a leading axis of images outside of a program. A pixel
    beyond the picture mixes nothing: its logits are 0."""

    source: Int32[Array | np.ndarray, "*b y t"]
    weight: Float32[Array | np.ndarray, "*b y t"]


class Sampling(NamedTuple):
    """Pictures of the sizes `size` (height, width) in arrays of one shape."""

    size: Int32[Array | np.ndarray, "*b 2"]
    rows: Mix
    columns: Mix


def room_for(sizes: Sequence[Size]) -> Size:
    """The (height, width) of arrays that hold pictures of these sizes."""
    height, width = (-(-max(edges) // ROOM) * ROOM for edges in zip(*sizes, strict=True))
    return height, width


def sampling_of(geometries: Sequence[Geometry], logits: tuple[int, ...]) -> Sampling:
    """Of pictures whose mask logits have the size `logits`; NumPy."""
    sizes = [geometry.original for geometry in geometries]
    rows, columns = (
        _mix([(logits[axis], g.padded[axis], g.resized[axis], g.original[axis]) for g in geometries], room)
        for axis, room in enumerate(room_for(sizes))
    )
    return Sampling(np.array(sizes, np.int32), rows, columns)


def _mix(axes: Sequence[tuple[int, int, int, int]], room: int) -> Mix:
    tables = [axis_of(*axis) for axis in axes]
    shape = len(tables), room, tables[0].taps.shape[1]
    index, weight = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    for image, table in enumerate(tables):
        index[image, : len(table.taps)], weight[image, : len(table.taps)] = table.taps, table.weights
    return Mix(index, weight)


def split_by_image(mesh: Mesh) -> NamedSharding:
    """The devices of `mesh` share the images of a batch evenly."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def each_image(function: Callable[..., Any], mesh: Mesh) -> Any:
    """The jitted program that applies a function of one image to those of a batch, which the devices of `mesh` share.
    One image occupies a device; so each device takes one after the other."""

    def of_device(*batch: Any) -> Any:
        return jax.lax.map(lambda image: function(*image), batch)

    split = split_by_image(mesh).spec
    return jax.jit(jax.shard_map(of_device, mesh=mesh, in_specs=split, out_specs=split, check_vma=False))


def each_strip(function: Callable[[Mix], Any], mix: Mix) -> Any:
    """A function of `STRIP` pixels of an axis, for one strip after another. What it returns is stacked."""
    return jax.lax.map(function, jax.tree.map(lambda x: x.reshape(-1, STRIP, *x.shape[1:]), mix))


def within(mix: Mix) -> Bool[Array, " y"]:
    """Which pixels of an axis lie in the picture: those that mix anything."""
    return jnp.any(jnp.asarray(mix.weight) != 0, axis=-1)


def mixed(mask_logits: Float32[Array, "q h w"], rows: Mix, columns: Mix) -> Float32[Array, "q y x"]:
    """The logits of some rows of a picture."""
    return _along(_along(mask_logits, rows, 1), columns, 2)


def _along(x: Float32[Array, "q _h _w"], mix: Mix, axis: int) -> Float32[Array, "q _y _x"]:
    weights = jnp.expand_dims(mix.weight, (0, 2) if axis == 1 else (0, 1))  # pixels on their axis, then taps
    taps = range(mix.source.shape[1])
    return reduce(add, (jnp.take(x, mix.source[:, t], axis=axis, mode="clip") * weights[..., t] for t in taps))
