"""Mask logits -> binary masks as run lengths, with the mean probability inside each.

Run lengths go down the columns of an image, so everything here is transposed: tiles cover (width, height), and a row of
them is a strip of columns. No mask ever exists at full size.

Axes: q queries, n those that a strip shows, w h its columns and their height.
"""

import math
from itertools import groupby
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64, Integer
from pycocotools import mask as coco_mask

from oneformer_jax.data.geometry import Geometry, Size
from oneformer_jax.postprocess.tiles import Tiles, sigmoid

RunLengths = dict[str, Any]
"""COCO's compressed run-length encoding: `{"size": [height, width], "counts": bytes}`."""


def binary_masks(
    mask_logits: Float[np.ndarray, "q h w"], geometry: Geometry
) -> tuple[list[RunLengths], Float64[np.ndarray, " q"]]:
    """Where the logits are above 0 at the original size, and the mean mask probability there (0: nowhere)."""
    transposed = Geometry(geometry.original[::-1], geometry.resized[::-1], geometry.padded[::-1])
    tiles = Tiles(mask_logits.transpose(0, 2, 1), transposed)
    visible = Tiles(mask_logits, geometry).bounds().high.swapaxes(0, 1) > 0  # faster than of what is transposed
    runs, mass = _Runs(len(tiles), geometry.original), np.zeros(len(tiles))
    for i, strip in groupby(tiles, key=lambda tile: tile.place[0]):
        of_strip = list(strip)
        queries = np.flatnonzero(visible[i].any(axis=0) | runs.unfinished)
        inside = np.zeros((len(queries), of_strip[0].shape[0], geometry.original[0]), bool)
        for tile in of_strip:
            here = np.flatnonzero(visible[tile.place][queries])
            logits = tiles.logits(tile, queries[here])
            positive = logits > 0
            inside[here, :, tile.columns] = positive.reshape(len(here), *tile.shape)
            mass[queries[here]] += (sigmoid(logits) * positive).sum(axis=1)
        runs.add(queries, inside)
    masks, area = runs.finished()
    return masks, mass / (area + 1e-6)


def run_lengths(
    of_mask: Integer[np.ndarray, " c"], change: Integer[np.ndarray, " c"], masks: int, size: Size
) -> tuple[list[RunLengths], Float64[np.ndarray, " q"]]:
    """So many masks of one size (height, width), and their areas, by the pixels where a mask begins or ends.

    Pixels are counted down the columns; the changes lie in the order of the masks and, of each, of the pixels.
    """
    ends = np.bincount(of_mask, minlength=masks).cumsum()
    found, areas = [], []
    for changes in np.split(change, ends[:-1]):
        lengths = np.diff(changes, prepend=0, append=math.prod(size))
        areas.append(lengths[1::2].sum())
        runs = {"size": list(size), "counts": lengths.tolist()}
        found.append(coco_mask.frPyObjects(runs, *size))
    return found, np.array(areas, np.float64)


class _Runs:
    """The runs of several masks, from strips of columns."""

    def __init__(self, masks: int, size: Size) -> None:
        self._size, self._pixels = size, 0
        self.unfinished = np.zeros(masks, bool)  # inside at the end of the last strip
        self._changes: list[tuple[Int64[np.ndarray, " c"], Int64[np.ndarray, " c"]]] = []

    def add(self, queries: Int64[np.ndarray, " n"], inside: Bool[np.ndarray, "n w h"]) -> None:
        """The next strip. All other masks are outside in it; none of these may be `unfinished`."""
        flat = inside.reshape(len(inside), math.prod(inside.shape[1:]))
        changes = np.empty_like(flat)
        np.not_equal(flat[:, :1], self.unfinished[queries, None], out=changes[:, :1])
        np.not_equal(flat[:, 1:], flat[:, :-1], out=changes[:, 1:])
        row, pixel = np.divmod(np.flatnonzero(changes), flat.shape[1])
        self._changes.append((queries[row], self._pixels + pixel))
        self.unfinished[queries] = flat[:, -1]
        self._pixels += flat.shape[1]

    def finished(self) -> tuple[list[RunLengths], Float64[np.ndarray, " q"]]:
        """All masks, and their areas in pixels."""
        of_query, change = (np.concatenate(parts) for parts in zip(*self._changes, strict=True))
        order = of_query.argsort(kind="stable")
        return run_lengths(of_query[order], change[order], len(self.unfinished), self._size)
