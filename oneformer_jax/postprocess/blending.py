"""The class of every pixel of a picture in windows: that of the largest sum of votes of all windows that show it.

Votes are those of `semantic`, weighted by the window: they fade towards its edges, so that no class changes at a seam
because a window ends there.

Axes: q queries, k classes, h w mask logits, p pixels.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Shaped

from oneformer_jax.data.geometry import Geometry, Size
from oneformer_jax.postprocess.tiles import TILE, Tiles, product, sigmoid
from oneformer_jax.postprocess.windows import Window, weights


class _Votes(NamedTuple):
    """Of one window: what its queries vote for, their masks, and how much its rows and columns count."""

    probabilities: Float32[np.ndarray, "q k"]
    masks: Tiles
    of_rows: Float32[np.ndarray, " h"]
    of_columns: Float32[np.ndarray, " w"]


class Blending:
    """Takes windows one after the other; `classes` (height, width) is complete after the last one.

    Only the mask logits of windows that share rows with later ones are kept: those of about two rows of windows.
    """

    def __init__(self, size: Size, windows: Sequence[Window], overlap: int, num_classes: int) -> None:
        self.classes: Shaped[np.ndarray, "height width"] = np.zeros(size, np.min_scalar_type(num_classes - 1))
        self._size, self._windows, self._overlap = size, windows, overlap
        self._votes: dict[int, _Votes] = {}
        edges = sorted({edge for window in windows for edge in (window.rows.start, window.rows.stop)})
        self._bands = [slice(*pair) for pair in pairwise(edges)]
        self._columns = sorted({edge for window in windows for edge in (window.columns.start, window.columns.stop)})

    def add(
        self,
        number: int,
        probabilities: Float32[np.ndarray, "q k"],
        mask_logits: Float[np.ndarray, "q h w"],
        geometry: Geometry,
    ) -> None:
        """The window of this number; they come in order."""
        window, (height, width) = self._windows[number], self._size
        self._votes[number] = _Votes(
            probabilities,
            Tiles(mask_logits, geometry),
            weights(window.rows, height, self._overlap),
            weights(window.columns, width, self._overlap),
        )
        coming = [window.rows.start for window in self._windows[number + 1 :]]
        while self._bands and self._bands[0].stop <= min(coming, default=height):
            band = self._bands.pop(0)
            for columns in pairwise(self._columns):
                for rows, part in _cut(band, slice(*columns)):
                    self._decide(rows, part)
            gone = [other for other in self._votes if self._windows[other].rows.stop <= band.stop]
            for other in gone:
                del self._votes[other]

    def _decide(self, rows: slice, columns: slice) -> None:
        """The classes of pixels that the same windows show."""
        total: Float32[np.ndarray, "k p"] | None = None
        for number, votes in self._votes.items():
            window = self._windows[number]
            if _holds(window.rows, rows) and _holds(window.columns, columns):
                down, across = _within(rows, window.rows), _within(columns, window.columns)
                masks = sigmoid(votes.masks.part(down, across))
                masks *= np.outer(votes.of_rows[down], votes.of_columns[across]).ravel()
                sums = product(votes.probabilities.T, masks)
                total = sums if total is None else total + sums
        assert total is not None
        shown = self.classes[rows, columns]
        shown[...] = total.argmax(axis=0).reshape(shown.shape)


def _cut(rows: slice, columns: slice) -> Iterator[tuple[slice, slice]]:
    """In parts that are summed up at once."""
    for y in range(rows.start, rows.stop, TILE):
        for x in range(columns.start, columns.stop, TILE):
            yield slice(y, min(y + TILE, rows.stop)), slice(x, min(x + TILE, columns.stop))


def _holds(outer: slice, inner: slice) -> bool:
    return outer.start <= inner.start and inner.stop <= outer.stop


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)
