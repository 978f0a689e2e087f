"""Mask logits and scores -> the query that owns every pixel: that of the largest score times mask probability.

What a tile cannot show is known from its patches, so only the likely owners, and masks that end in it, are computed
there; a pixel whose best one does not surpass what all others may reach is decided again among all queries.

Axes: q queries, n those of a tile, p its pixels.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int64, Integer

from oneformer_jax.postprocess.largest import first_largest, only_ones, some_at_once
from oneformer_jax.postprocess.tiles import EPSILON, Tiles, sigmoid

LIKELY = 0.05  # of the largest strength that a tile can show: queries that may reach so much are computed at first
MANY = 128  # pixels of a tile that are worth the interpolation of the others


class Owners(NamedTuple):
    """`owner` is the query that wins a pixel, Q where its own mask does not hold there (mask logit below 0).

    `won` counts the pixels that a query wins, whether its mask holds there or not, `seen` those where it does;
    `held` all pixels where its mask holds.
    """

    owner: Integer[np.ndarray, "height width"]
    won: Int64[np.ndarray, " q"]
    seen: Int64[np.ndarray, " q"]
    held: Int64[np.ndarray, " q"]


def owners(scores: Float32[np.ndarray, " q"], tiles: Tiles) -> Owners:
    """Who owns which pixel. A tie goes to the first query."""
    count = len(scores)
    low, high, blur = tiles.bounds()
    least, largest = (sigmoid(bound) * scores for bound in (low, high))
    largest[largest * (1 + 1e-9) < least.max(axis=-1, keepdims=True)] = 0
    ends = (low < 0) & (high >= 0)

    owner = np.empty(tiles.size, np.min_scalar_type(-count - 1))  # -1: still open
    won, seen, held = np.zeros((3, count), np.int64)

    def settle(winner: Integer[np.ndarray, " p"], logit: Float[np.ndarray, " p"]) -> Integer[np.ndarray, " p"]:
        """The owners of pixels that are won by a mask with this logit, counted; -1 stays open."""
        holds = (logit >= 0) | (winner < 0)
        of_holding = np.bincount(2 * winner + holds + 2, minlength=2 * count + 2).reshape(-1, 2)[1:]
        won[:] += of_holding.sum(axis=1)
        seen[:] += of_holding[:, 1]
        return np.where(holds, winner, count)

    for tile in tiles:
        strength, ending = largest[tile.place], ends[tile.place]
        area = math.prod(tile.shape)
        held += area * (low[tile.place] >= 0)
        if np.count_nonzero(strength) > 1:
            likely = strength >= LIKELY * strength.max()
        else:
            likely = np.arange(count) == strength.argmax()
        needed = np.flatnonzero(likely | ending)
        logits = tiles.logits(tile, needed)
        for query, row in zip(needed, logits, strict=True):
            held[query] += ending[query] and np.count_nonzero(row >= 0)

        rows, noise = likely[needed], float(blur[tile.place])
        winner, logit = _winner(logits[rows], needed[rows], scores, noise, strength[~likely].max(initial=0))
        unclear = np.flatnonzero(winner < 0)
        if len(unclear) > MANY:
            rivals = np.flatnonzero(strength)
            logits = tiles.logits(tile, rivals)[:, unclear]
            winner[unclear], logit[unclear] = _winner(logits, rivals, scores, noise)
        owner[tile.rows, tile.columns] = settle(winner, logit).reshape(tile.shape)

    for pixels in some_at_once(np.flatnonzero(owner < 0)):
        logits = tiles.exact(pixels)
        winner = first_largest(sigmoid(logits) * scores[:, None])
        owner.flat[pixels] = settle(winner, np.take_along_axis(logits, winner[None], axis=0)[0])
    return Owners(owner, won, seen, held)


def _winner(
    logits: Float32[np.ndarray, "n p"],
    queries: Int64[np.ndarray, " n"],
    scores: Float32[np.ndarray, " q"],
    blur: float,
    others: float = 0.0,
) -> tuple[Int64[np.ndarray, " p"], Float32[np.ndarray, " p"]]:
    """Which of the queries wins each pixel, -1 where float32 cannot tell or where one of the `others` may; and the
    logit of its mask."""
    strengths = sigmoid(logits) * scores[queries, None]
    best = strengths.max(axis=0)
    # A probability s is off by the fraction (1 - s) of what its logit is off; no rival of the best is further from 1.
    missing = 1 - best / scores[queries].max()
    reaches, single = only_ones(strengths, best - best * (8 * EPSILON + blur * missing))
    single &= best * (1 - 8 * EPSILON - blur) >= others
    winner = np.where(single, queries.astype(np.float32) @ reaches, -1).astype(np.int64)
    return winner, (reaches * logits).sum(axis=0)
