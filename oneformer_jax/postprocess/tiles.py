"""Mask logits -> logits at the original size, for a tile and some queries at a time.

The path of the reference is three steps: bilinear interpolation to the padded network input, a crop that removes the
padding, and bilinear interpolation to the original size. All of it is linear and separable, so each axis is one small
banded matrix, and a tile of the result is `vertical @ patch @ horizontal.T`. Its weights are not negative and add up to
1: no pixel of a tile lies outside the range of its patch, which says what a tile can show before it is computed.

Axes: q queries, n some of them, k classes, h w mask logits, i j tiles down and across, p pixels,
s t source and target of one axis, m columns.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from oneformer_jax.data.geometry import Geometry, Size

TILE = 64  # pixels a side: wide enough for NumPy, narrow enough to show few segments
TAPS = 3  # sources of a pixel along an axis: two of the second interpolation, next to each other, have two each
EPSILON = float(np.finfo(np.float32).eps)
ROUNDING = 16 * EPSILON
"""By which fraction of the largest logit of its patch an interpolated one in float32 is off at most: each axis rounds
its weights, two products and three sums."""
BLAS_ALONE = 2**18  # multiplications up to which OpenBLAS stays in the thread that calls it


def softmax(logits: Float[np.ndarray, "*batch k"]) -> Float[np.ndarray, "*batch k"]:
    """Softmax over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def sigmoid(logits: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """1 / (1 + exp(-x)); large tiles are the hot path, so every step works in place."""
    result = np.negative(logits)
    with np.errstate(over="ignore"):  # 1 / infinity is the 0 that it should be
        np.exp(result, out=result)
    result += 1.0
    return np.reciprocal(result, out=result)


def product(a: Float32[np.ndarray, "k n"], b: Float32[np.ndarray, "n p"]) -> Float32[np.ndarray, "k p"]:
    """`a @ b` in this thread alone: whoever calls it has others beside it."""
    result = np.empty((len(a), b.shape[1]), np.float32)
    step = max(1, BLAS_ALONE // max(1, a.size))
    for start in range(0, b.shape[1], step):
        np.matmul(a, b[:, start : start + step], out=result[:, start : start + step])
    return result


def interpolate_rows(rows: Float[np.ndarray, "s m"], size: int) -> Float[np.ndarray, "t m"]:
    """Bilinear interpolation of the first axis to `size` rows: half-pixel centres (`align_corners=False`), the edge
    repeated, no antialiasing; as `torch.nn.functional.interpolate` along one axis."""
    count = rows.shape[0]
    position = np.maximum((np.arange(size) + 0.5) * (count / size) - 0.5, 0.0)
    low = np.minimum(position.astype(np.int64), count - 1)
    weight = (position - low)[:, None]
    return rows[low] * (1.0 - weight) + rows[np.minimum(low + 1, count - 1)] * weight


class _Block(NamedTuple):
    """Up to `TILE` outputs of an axis, `target`, which read only the inputs `source`."""

    target: slice
    source: slice
    operator: Float32[np.ndarray, "t s"]


class Axis(NamedTuple):
    """One axis, from mask logits to the original: in blocks, and as `TAPS` weighted inputs of each output."""

    blocks: tuple[_Block, ...]
    taps: Int64[np.ndarray, "t taps"]
    weights: Float64[np.ndarray, "t taps"]


@lru_cache(maxsize=256)
def axis_of(logits: int, padded: int, resized: int, original: int) -> Axis:
    """Of so many mask logits and pixels."""
    operator = interpolate_rows(interpolate_rows(np.eye(logits), padded)[:resized], original)
    blocks = []
    for start in range(0, original, TILE):
        rows = operator[start : start + TILE]
        used = np.flatnonzero(rows.any(axis=0))
        source = slice(int(used[0]), int(used[-1]) + 1)
        blocks.append(_Block(slice(start, start + len(rows)), source, rows[:, source].astype(np.float32)))
    first = np.minimum((operator != 0).argmax(axis=1), max(logits - TAPS, 0))
    taps = first[:, None] + np.arange(min(TAPS, logits))
    return Axis(tuple(blocks), taps, np.take_along_axis(operator, taps, axis=1))


def _block(axis: Axis, target: slice) -> _Block:
    """Any outputs of an axis, one after the other."""
    taps, weights = axis.taps[target], axis.weights[target]
    first = int(taps.min())
    operator = np.zeros((len(taps), int(taps.max()) + 1 - first), np.float32)
    np.put_along_axis(operator, taps - first, weights.astype(np.float32), axis=1)
    return _Block(target, slice(first, first + operator.shape[1]), operator)


class Bounds(NamedTuple):
    """Between which values the logits of each tile lie, and by how much float32 may be off there, twice."""

    low: Float64[np.ndarray, "i j q"]
    high: Float64[np.ndarray, "i j q"]
    blur: Float64[np.ndarray, "i j"]


class Tile(NamedTuple):
    """The pixels `[rows, columns]` of the original image; `place` counts tiles down and across."""

    place: tuple[int, int]
    rows: slice
    columns: slice

    @property
    def shape(self) -> Size:
        """(height, width)."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


class Tiles:
    """The mask logits of one image at its original size. Iterating gives the tiles that cover it, row by row.

    Equal to the three steps of the reference within rounding (interpolation weights are not rounded between the steps).
    """

    def __init__(self, mask_logits: Float[np.ndarray, "q h w"], geometry: Geometry) -> None:
        self.size = geometry.original
        self._logits = mask_logits.astype(np.float32, copy=False)
        self._vertical, self._horizontal = (
            axis_of(count, geometry.padded[axis], geometry.resized[axis], geometry.original[axis])
            for axis, count in enumerate(mask_logits.shape[1:])
        )

    def __len__(self) -> int:
        """The number of queries."""
        return len(self._logits)

    def __iter__(self) -> Iterator[Tile]:
        for i, vertical in enumerate(self._vertical.blocks):
            for j, horizontal in enumerate(self._horizontal.blocks):
                yield Tile((i, j), vertical.target, horizontal.target)

    def bounds(self) -> Bounds:
        """What the patches say about all tiles."""
        extremes = []
        for vertical in self._vertical.blocks:
            rows = self._logits[:, vertical.source]
            for reduce in (np.min, np.max):
                across = np.ascontiguousarray(reduce(rows, axis=1).T)
                extremes.append([reduce(across[block.source], axis=0) for block in self._horizontal.blocks])
        low, high = np.array(extremes[::2], np.float64), np.array(extremes[1::2], np.float64)
        error = ROUNDING * np.maximum(abs(low), abs(high))
        return Bounds(low - error, high + error, 2 * error.max(axis=-1, initial=0))

    def logits(self, tile: Tile, queries: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n p"]:
        """Those of some queries in a tile, row by row."""
        i, j = tile.place
        down, across = self._vertical.blocks[i], self._horizontal.blocks[j]
        patch = self._logits[queries, down.source, across.source]
        return (down.operator @ (patch @ across.operator.T)).reshape(len(queries), math.prod(tile.shape))

    def part(self, rows: slice, columns: slice) -> Float32[np.ndarray, "q p"]:
        """Those of all queries in the pixels `[rows, columns]`, wherever they lie, row by row."""
        down, across = _block(self._vertical, rows), _block(self._horizontal, columns)
        patch = self._logits[:, down.source, across.source]
        return (down.operator @ (patch @ across.operator.T)).reshape(len(self), -1)

    def exact(self, pixels: Int64[np.ndarray, " p"]) -> Float64[np.ndarray, "q p"]:
        """Those of all queries at some pixels of the original, numbered row by row, in float64."""
        y, x = np.divmod(pixels, self.size[1])
        down, across = self._vertical, self._horizontal
        read = self._logits[:, down.taps[y][:, :, None], across.taps[x][:, None, :]].astype(np.float64)
        weights = down.weights[y][:, :, None] * across.weights[x][:, None, :]
        return (read * weights).sum(axis=(2, 3))
