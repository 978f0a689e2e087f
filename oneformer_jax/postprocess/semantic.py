"""Mask logits and class probabilities -> the class of every pixel: that of the largest sum of votes.

A query votes for each class with its class probability times its mask probability at the pixel. No vote is left out
that could change a class: what a tile cannot show is known from its patches, and a pixel whose decision is closer than
what was left out or rounded is decided again with all votes.

Axes: q queries, k classes, i j tiles, p pixels of a tile.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Shaped

from oneformer_jax.postprocess.largest import first_largest, only_ones, some_at_once
from oneformer_jax.postprocess.tiles import EPSILON, Tile, Tiles, product, sigmoid

LIKELY = 0.2  # of the largest sum that a tile can show: classes that may reach so much are looked at one by one
LEFT_OUT = 0.005  # of the same: so much may the votes of the queries matter that are left out at first
MANY = 128  # pixels of a tile that are worth the interpolation of all queries


class _Range(NamedTuple):
    """What a tile can show: the middle of the mask probabilities of each query and how far they may be from it; the
    largest possible sum of each class, 0 where another class has more in any case; the rounding of a sum."""

    middle: Float64[np.ndarray, " q"]
    spread: Float64[np.ndarray, " q"]
    largest: Float64[np.ndarray, " k"]
    blur: float


def class_map(probabilities: Float32[np.ndarray, "q k"], tiles: Tiles) -> Shaped[np.ndarray, "height width"]:
    """Class indices in the smallest unsigned integer type that holds K classes."""
    votes = probabilities.astype(np.float64)
    low, high, blur = tiles.bounds()
    low, high = sigmoid(low), sigmoid(high)
    least, largest = low @ votes, high @ votes
    largest[largest * (1 + 1e-9) < least.max(axis=-1, keepdims=True)] = 0
    middle, spread = (low + high) / 2, (high - low) / 2
    blur += 2 * (len(votes) + 8) * EPSILON

    classes = np.empty(tiles.size, np.min_scalar_type(votes.shape[1] - 1))
    still_open = np.zeros(tiles.size, bool)
    for tile in tiles:
        place = tile.place
        range_ = _Range(middle[place], spread[place], largest[place], float(blur[place]))
        shown = classes[tile.rows, tile.columns]
        if np.count_nonzero(range_.largest) <= 1:
            shown[...] = range_.largest.argmax()
            continue
        found = _decided(probabilities, tiles, tile, range_).reshape(shown.shape)
        np.copyto(shown, found, where=found >= 0, casting="unsafe")
        still_open[tile.rows, tile.columns] = found < 0
    for pixels in some_at_once(np.flatnonzero(still_open)):
        masks = sigmoid(tiles.exact(pixels))
        classes.flat[pixels] = first_largest(votes.T @ masks)
    return classes


def _decided(
    probabilities: Float32[np.ndarray, "q k"], tiles: Tiles, tile: Tile, range_: _Range
) -> Float32[np.ndarray, " p"]:
    """The classes of a tile's pixels, -1 where float32 cannot tell."""
    possible = range_.largest > 0
    most = range_.largest.max()
    likely = np.flatnonzero(range_.largest >= LIKELY * most)
    # Of the unlikely ones, one row stands for all: no sum of theirs is larger.
    unlikely = probabilities * possible
    unlikely[:, likely] = 0
    votes = np.column_stack([probabilities[:, likely], unlikely.max(axis=1)])
    classes = np.append(likely, -1).astype(np.float32)

    # A query that is left out counts as if its mask were the middle of its range everywhere.
    matters = (votes.max(axis=1) - votes.min(axis=1)) * range_.spread
    order = matters.argsort()
    error = matters[order].cumsum()
    count = int(error.searchsorted(LEFT_OUT * most, side="right"))
    left_out, counted = order[:count], np.sort(order[count:])
    sums = product(votes[counted].T, sigmoid(tiles.logits(tile, counted)))
    sums += (range_.middle[left_out] @ votes[left_out]).astype(np.float32)[:, None]
    best = sums.max(axis=0)
    slack = best * np.float32(range_.blur) + np.float32(error[count - 1] if count else 0)
    reaches, single = only_ones(sums, best - slack)
    found = np.where(single, classes @ reaches, -1)

    unclear = np.flatnonzero(found < 0)
    if len(unclear) > MANY:
        masks = sigmoid(tiles.logits(tile, np.arange(len(tiles)))[:, unclear])
        sums = product(probabilities[:, possible].T, masks)
        best = sums.max(axis=0)
        reaches, single = only_ones(sums, best - best * np.float32(range_.blur))
        found[unclear] = np.where(single, np.flatnonzero(possible).astype(np.float32) @ reaches, -1)
    return found
