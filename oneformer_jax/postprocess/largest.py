"""Which of several scores is the largest at a pixel, decided in float32 where that can tell and in float64 elsewhere.

Axes: n scores of a pixel, p pixels.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

TIE = 1e-12
"""Scores that differ by a smaller fraction in float64 are a tie, which goes to the first."""
PIXELS_AT_ONCE = 1024


def only_ones(
    scores: Float32[np.ndarray, "n p"], least: Float32[np.ndarray, " p"]
) -> tuple[Float32[np.ndarray, "n p"], Bool[np.ndarray, " p"]]:
    """1 for each score that is not below `least`, and at which pixels that is a single one: a sum over the scores
    times these is there the value of that one."""
    reaches = (scores >= least).astype(np.float32)
    return reaches, reaches.sum(axis=0) == 1


def first_largest(scores: Float64[np.ndarray, "n p"]) -> Int64[np.ndarray, " p"]:
    """The first score of each pixel that is the largest, ties included."""
    return (scores >= scores.max(axis=0) * (1 - TIE)).argmax(axis=0)


def some_at_once(pixels: Int64[np.ndarray, " p"]) -> Iterator[Int64[np.ndarray, " n"]]:
    """Pixels in parts, so that the float64 numbers of all queries take little memory."""
    yield from np.split(pixels, range(PIXELS_AT_ONCE, len(pixels), PIXELS_AT_ONCE))
