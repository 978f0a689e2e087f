"""Random points and bilinear sampling at them.

Points are (x, y) in the unit square of the image: the centre of pixel (i, j) of an h x w map is ((j + 0.5) / w,
(i + 0.5) / h), whatever its resolution, and outside the map every value is 0. This is what `grid_sample` of PyTorch
computes with `align_corners=False` and `padding_mode="zeros"`. Points outside the unit square are not supported.

Axes: s points, n maps or rows of points, b images, h w c maps and their channels, r planes of a segment map,
t segments, m matched pairs.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, Num

from oneformer_jax.models.layers import random_bits

DIGIT = 2
"""Bits of the threshold of `uncertain_weights` that a pass over the logits decides."""


def uniform_points(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "... 2"]:
    """Uniformly distributed points on a lattice of 2^-16 of the image side, `shape` of them.

    Both coordinates come from one word.
    """
    bits = random_bits(key, shape)
    shift = jnp.array([16, 0], jnp.uint32).reshape((1,) * len(shape) + (2,))
    halves = (bits[..., None] >> shift) & 0xFFFF
    return (halves.astype(float) + 0.5) / 65536


def _corners(
    points: Float[Array, "*n 2"], height: int, width: int
) -> Iterator[tuple[Int[Array, "*n"], Float[Array, "*n"]]]:
    """The four pixels around each point: flat index into the map with a border of one pixel, and bilinear weight."""
    x, y = points[..., 0] * width - 0.5, points[..., 1] * height - 0.5
    left, top = jnp.floor(x), jnp.floor(y)
    right, down = x - left, y - top
    first = (top.astype(jnp.int32) + 1) * (width + 2) + left.astype(jnp.int32) + 1
    for i, row_weight in enumerate((1 - down, down)):
        for j, column_weight in enumerate((1 - right, right)):
            yield first + (i * (width + 2) + j), row_weight * column_weight


def _border(maps: Num[Array, "*n h w"], value: int) -> Num[Array, "*n hw"]:
    """Flat maps with a border of one pixel, so that no corner needs a test of validity."""
    outer = [(0, 0)] * (maps.ndim - 2)
    padded = jnp.pad(maps, [*outer, (1, 1), (1, 1)], constant_values=value)
    return padded.reshape(*maps.shape[:-2], -1)


def _take(flat: Num[Array, "*n hw"], index: Int[Array, "*n s"]) -> Num[Array, "*n s"]:
    return jnp.take_along_axis(flat, index, axis=-1, mode="promise_in_bounds")


def sample_masks(masks: Float[Array, "n h w"], points: Float[Array, "n s 2"]) -> Float[Array, "n s"]:
    """Values of each map at its own points. Differentiable in the maps only."""
    _, height, width = masks.shape

    @jax.custom_vjp
    def sample(masks: Array, points: Array) -> Array:
        flat = _border(masks, 0)
        corners = (weight * _take(flat, index) for index, weight in _corners(points, height, width))
        return functools.reduce(jnp.add, corners)

    def forward(masks: Array, points: Array) -> tuple[Array, Array]:
        return sample(masks, points), points

    def backward(points: Array, cotangent: Array) -> tuple[Array, None]:
        # One 2 x 2 window a point: XLA's CPU scatter is twice as fast as with four single values.
        weights = jnp.stack([weight for _, weight in _corners(points, height, width)], axis=-1)
        first, _ = next(_corners(points, height, width))
        windows = (weights * cotangent[..., None]).reshape(*cotangent.shape, 2, 2)
        start = jnp.stack([first // (width + 2), first % (width + 2)], axis=-1)
        numbers = lax.ScatterDimensionNumbers(
            update_window_dims=(1, 2), inserted_window_dims=(), scatter_dims_to_operand_dims=(0, 1)
        )
        empty = jnp.zeros((height + 2, width + 2), cotangent.dtype)
        add = functools.partial(lax.scatter_add, dimension_numbers=numbers, mode="promise_in_bounds")
        bordered = jax.vmap(lambda start, window: add(empty, start, window))(start, windows)
        return bordered[:, 1:-1, 1:-1], None

    sample.defvjp(forward, backward)
    return sample(masks, points)


def sample_features(features: Float[Array, "b h w c"], points: Float[Array, "b s 2"]) -> Float[Array, "b s c"]:
    """Feature vectors of each image at its points, in float32."""
    images, height, width, channels = features.shape
    flat = features.reshape(images, height * width, channels)
    total = jnp.zeros((images, points.shape[1], channels), float)
    for index, weight in _corners(points, height, width):
        # No border here: it would be a copy of the largest array of the step.
        row, column = index // (width + 2) - 1, index % (width + 2) - 1
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        row, column = jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)
        taken = jax.vmap(lambda rows, i: rows.at[i].get(mode="promise_in_bounds"))(flat, row * width + column)
        total += jnp.where(inside, weight, 0)[..., None] * taken.astype(float)
    return total


def sample_segments(
    segment_index: Int[Array, "b r h w"], points: Float[Array, "b s 2"], num_segments: int
) -> Float[Array, "b t s"]:
    """Values of all segment masks of each image at points that they share.

    `segment_index` holds the segment's number at the pixels that it covers, on the plane where it lives (data.batch);
    the mask of segment t is therefore the sum over planes of `segment_index == t`.
    """
    flat = _border(segment_index, -1)
    segments = jnp.arange(num_segments, dtype=flat.dtype)
    total = jnp.zeros((len(points), num_segments, points.shape[1]), float)
    for index, weight in _corners(points, *segment_index.shape[2:]):
        found = _take(flat, jnp.broadcast_to(index[:, None], (*flat.shape[:2], points.shape[1])))
        inside = jnp.any(found[:, :, None, :] == segments[None, None, :, None], axis=1)
        total += jnp.where(inside, weight[:, None], 0)
    return total


def sample_segment(
    segment_index: Int[Array, "n h w"],
    plane: Int[Array, " m"],
    segment: Int[Array, " m"],
    points: Float[Array, "m s 2"],
) -> Float[Array, "m s"]:
    """Values of the mask of one segment a row, at points of its own; `plane` selects the map on which it lives."""
    height, width = segment_index.shape[1:]
    flat = _border(segment_index, -1)
    offset = plane[:, None] * flat.shape[1]
    flat = flat.reshape(-1)
    total = jnp.zeros(points.shape[:2], float)
    for index, weight in _corners(points, height, width):
        found = flat.at[offset + index].get(mode="promise_in_bounds")
        total += jnp.where(found == segment[:, None], weight, 0)
    return total


def uncertain_weights(logits: Float[Array, "*n s"], count: int) -> Float[Array, "*n s"]:
    """1 for the `count` logits nearest to 0 and 0 for the rest of each row; they sum to `count`.

    Logits that tie for the last places share them, which is the expectation of choosing among them at random. A
    threshold is enough: no index, no sort. It is found digit by digit, as floats of one sign are ordered like their
    bits.
    """
    width = jnp.finfo(logits.dtype).bits
    bits = lax.bitcast_convert_type(jnp.abs(logits), f"uint{width}")

    def refine(step: Int[Array, ""], threshold: Array) -> Array:
        shift = (width - DIGIT * (step + 1)).astype(bits.dtype)
        candidates = [threshold | (jnp.asarray(digit, bits.dtype) << shift) for digit in range(1, 2**DIGIT)]
        below = _counts(*(bits < candidate[..., None] for candidate in candidates))
        digit = sum((number < count).astype(bits.dtype) for number in below)  # the largest that leaves too few below
        return threshold | (digit << shift)

    threshold = lax.fori_loop(0, width // DIGIT, refine, jnp.zeros(bits.shape[:-1], bits.dtype))[..., None]
    below, tied = bits < threshold, bits == threshold
    num_below, num_tied = _counts(below, tied)
    share = (count - num_below) / jnp.maximum(num_tied, 1)
    return jnp.where(tied, share[..., None], below.astype(float))


def _counts(*masks: Bool[Array, "*n s"]) -> tuple[Int[Array, "*n"], ...]:
    """How many entries of each row are true, all masks in one pass, which XLA for CPU does faster than a sum of one."""
    zeros = (jnp.zeros((), jnp.int32),) * len(masks)

    def add(totals: tuple[Array, ...], ones: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(total + one for total, one in zip(totals, ones, strict=True))

    return lax.reduce(tuple(mask.astype(jnp.int32) for mask in masks), zeros, add, (masks[0].ndim - 1,))
