"""Large pictures in parts that overlap, each of which a network sees alone."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from oneformer_jax.data.geometry import Size


class Window(NamedTuple):
    """The pixels `[rows, columns]` of a picture. `own_rows` and `own_columns` are those that lie nearer to its middle
    than to that of any other: of all windows, they cover the picture once."""

    rows: slice
    columns: slice
    own_rows: slice
    own_columns: slice

    @property
    def size(self) -> Size:
        """(height, width)."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


@dataclass(frozen=True)
class Windows:
    """Windows of `side` x `side` pixels (less where a picture is smaller), of which neighbours share `overlap` pixels
    or more. They are spread evenly: all windows of a picture have one size."""

    side: int
    overlap: int

    def __post_init__(self) -> None:
        """Raises ValueError: neighbours share nothing, or more than half."""
        if not isinstance(self.side, int) or not isinstance(self.overlap, int) or self.side < 2:
            what = f"not {self.side!r} and {self.overlap!r}"
            raise ValueError(f"a tile has 2 pixels or more a side and a whole number of pixels to share, {what}")
        if not 0 < self.overlap <= self.side // 2:
            raise ValueError(f"tiles of {self.side} pixels overlap by 1 to {self.side // 2} pixels, not {self.overlap}")

    @classmethod
    def of_sides(cls, side: int, overlap: int | None) -> "Windows":
        """With an overlap of an eighth of the side where none is given."""
        return cls(side, max(1, int(side) // 8) if overlap is None else overlap)

    def of(self, size: Size) -> list[Window]:
        """Those of a picture of (height, width), row by row."""
        down, across = map(self._along, size)
        return [Window(rows, columns, own, own2) for rows, own in down for columns, own2 in across]

    def _along(self, length: int) -> list[tuple[slice, slice]]:
        """Of one axis: each with what is its own."""
        side = min(self.side, length)
        count = 1 + max(0, math.ceil((length - side) / (self.side - self.overlap)))
        starts = [number * (length - side) // max(1, count - 1) for number in range(count)]
        middles = [(start + side + after) // 2 for start, after in pairwise(starts)]
        owned = zip([0, *middles], [*middles, length], strict=True)
        return [(slice(start, start + side), slice(*own)) for start, own in zip(starts, owned, strict=True)]


def weights(window: slice, length: int, overlap: int) -> Float32[np.ndarray, " n"]:
    """How much the pixels of a window count along an axis of so many pixels: they fade over `overlap` pixels towards
    an edge beyond which the picture goes on."""
    place = np.arange(window.start, window.stop) + 0.5
    before = place - window.start if window.start > 0 else np.inf
    after = window.stop - place if window.stop < length else np.inf
    return np.minimum(1, np.minimum(before, after) / overlap).astype(np.float32) * np.ones(len(place), np.float32)
