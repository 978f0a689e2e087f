"""Mask logits at stride 4 -> logits at the original size, tile by tile, and logits -> probabilities.

The path of the reference is three steps: bilinear interpolation to the padded network input, a crop that removes the
padding, and bilinear interpolation to the original size. All of it is linear and separable, so each axis is one small
banded matrix, and a tile of the result is `vertical @ patch @ horizontal.T`. A float tensor of all queries at full
size never exists.

Axes: q queries, h w mask logits at stride 4, r c rows and columns of a tile, s t source and target of one axis, n
columns.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from oneformer_jax.data.geometry import Geometry


def softmax(logits: Float[np.ndarray, "*batch k"]) -> Float[np.ndarray, "*batch k"]:
    """Softmax over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def sigmoid(logits: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """1 / (1 + exp(-x)) without overflow; large tiles are the hot path, so every step works in place."""
    result = np.negative(logits)
    np.minimum(result, 80.0, out=result)  # exp(80) is finite in float32, and 1 / exp(80) is 0 for any purpose
    np.exp(result, out=result)
    result += 1.0
    return np.reciprocal(result, out=result)


TILE = 64  # pixels a side: 150 queries fill 2.4 MB, which stays in the cache between the steps that use it


class Tile(NamedTuple):
    """Logits (Q, r, c) of the pixels `[rows, columns]` of the original image."""

    rows: slice
    columns: slice
    logits: Float[np.ndarray, "q r c"]


class _Block(NamedTuple):
    """Up to `TILE` rows of an axis operator: outputs `target` read only the inputs `source`."""

    target: slice
    source: slice
    operator: Float[np.ndarray, "t s"]


def interpolate_rows(rows: Float[np.ndarray, "s n"], size: int) -> Float[np.ndarray, "t n"]:
    """Bilinear interpolation of the first axis to `size` rows: half-pixel centres (`align_corners=False`), the edge
    repeated, no antialiasing; as `torch.nn.functional.interpolate` along one axis."""
    count = rows.shape[0]
    position = np.maximum((np.arange(size) + 0.5) * (count / size) - 0.5, 0.0)
    low = np.minimum(position.astype(np.int64), count - 1)
    weight = (position - low)[:, None]
    return rows[low] * (1.0 - weight) + rows[np.minimum(low + 1, count - 1)] * weight


@lru_cache(maxsize=256)
def _blocks(logits: int, padded: int, resized: int, original: int) -> tuple[_Block, ...]:
    """The operator of one axis, from `logits` inputs to `original` outputs, cut into blocks."""
    operator = interpolate_rows(interpolate_rows(np.eye(logits), padded)[:resized], original).astype(np.float32)
    blocks = []
    for start in range(0, original, TILE):
        rows = operator[start : start + TILE]
        used = np.flatnonzero(rows.any(axis=0))
        source = slice(int(used[0]), int(used[-1]) + 1)
        blocks.append(_Block(slice(start, start + len(rows)), source, np.ascontiguousarray(rows[:, source])))
    return tuple(blocks)


def tiles(mask_logits: Float[np.ndarray, "q h w"], geometry: Geometry) -> Iterator[Tile]:
    """Tiles that cover the original image once, row by row. Equal to the three steps of the reference within float32
    rounding (interpolation weights are not rounded between the steps)."""
    _, height, width = mask_logits.shape
    logits = mask_logits.astype(np.float32, copy=False)
    vertical, horizontal = (
        _blocks(count, geometry.padded[axis], geometry.resized[axis], geometry.original[axis])
        for axis, count in enumerate((height, width))
    )
    for rows in vertical:
        for columns in horizontal:
            patch = logits[:, rows.source, columns.source]
            yield Tile(rows.target, columns.target, rows.operator @ (patch @ columns.operator.T))
