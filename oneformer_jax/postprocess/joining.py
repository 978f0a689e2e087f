"""Objects that several windows of a picture show, put together: what two windows say of the pixels that they share
tells which of their objects are the same."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco_mask

from oneformer_jax.data.geometry import Size
from oneformer_jax.postprocess.instance import RunLengths, run_lengths
from oneformer_jax.postprocess.windows import Window

SAME = 0.5
"""The intersection over union, where two windows overlap, from which on two objects of a class are one."""


class Piece(NamedTuple):
    """What the window of this number shows of an object; `mask` covers the window. `parts` are what of it lies in other
    windows, by their numbers, each in the pixels that both windows show."""

    window: int
    category: int
    score: float
    mask: RunLengths
    parts: Mapping[int, RunLengths]


@dataclass(frozen=True)
class Whole:
    """An object of a picture, with the score in the window that shows most of it. `mask` fills the pixels `[rows,
    columns]`."""

    category: int
    score: float
    rows: slice
    columns: slice
    mask: Bool[np.ndarray, "h w"]

    def run_lengths(self, size: Size) -> RunLengths:
        """The mask in a picture of (height, width)."""
        down = np.pad(self.mask.T, ((0, 0), (1, 1)))
        column, row = np.nonzero(down[:, 1:] != down[:, :-1])
        change = (self.columns.start + column) * size[0] + self.rows.start + row
        # What ends at the foot of a column may go on at the head of the next one.
        differs = change[1:] != change[:-1]
        change = change[np.append(True, differs) & np.append(differs, True) & (change < size[0] * size[1])]
        return run_lengths(np.zeros(len(change), np.int64), change, 1, size)[0][0]


class Joining:
    """Takes what windows show, each of its own, and gives the objects of the picture."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self._windows, self._pieces = windows, list[Piece]()
        self._zones = [_zones(window, windows) for window in windows]

    def add(self, number: int, objects: Iterable[tuple[int, float, RunLengths]]) -> None:
        """Class, score and mask of each object of the window of this number."""
        of_mask: dict[int, dict[int, RunLengths]] = {}  # an instance of several classes has one mask
        for category, score, mask in objects:
            if id(mask) not in of_mask:
                of_mask[id(mask)] = _parts(mask, self._zones[number])
            self._pieces.append(Piece(number, category, score, mask, of_mask[id(mask)]))

    def wholes(self) -> list[Whole]:
        """The objects, best first. What a window shows the end of, and another one all of that and more, is left out
        where that other one does not find it: it would be a cut object, or one more for an object that is found."""
        groups = joined(self._pieces)
        kept = [pieces for pieces in groups if len(pieces) > 1 or not self._is_seen_better(pieces[0])]
        found = [_whole(pieces, self._windows) for pieces in kept]
        return sorted(found, key=lambda one: -one.score)

    def _is_seen_better(self, piece: Piece) -> bool:
        """Whether a piece ends at an edge of its window, beyond which a window goes on that shows all of the piece."""
        window = self._windows[piece.window]
        left, top, width, height = (round(value) for value in coco_mask.toBbox(piece.mask))
        box = (slice(top, top + height), slice(left, left + width))
        # For rows and columns: whether the piece ends at an edge beyond which other windows go on.
        axes = zip(box, window.size, window[:2], window[2:], strict=True)
        ends = [
            (part.start == 0 and own.start > all_.start, part.stop == length and own.stop < all_.stop)
            for part, length, all_, own in axes
        ]

        def goes_on(other: Window) -> bool:
            return all(
                not (before and theirs.start >= ours.start) and not (after and theirs.stop <= ours.stop)
                for (before, after), ours, theirs in zip(ends, window[:2], other[:2], strict=True)
            )

        def holds_all(zone: tuple[slice, slice]) -> bool:
            return all(
                shown.start <= part.start and part.stop <= shown.stop for shown, part in zip(zone, box, strict=True)
            )

        return any(map(any, ends)) and any(
            holds_all(zone) and goes_on(self._windows[number]) for number, zone in self._zones[piece.window].items()
        )


def joined(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """The pieces of each object: those of one class whose masks agree (`SAME`) where their windows overlap, and so on
    from window to window. Of two windows, a piece is joined with one piece at most: the best ones come first."""
    group = list(range(len(pieces)))  # by a piece that leads on to the first of the group

    def first(number: int) -> int:
        while group[number] != number:
            group[number] = number = group[group[number]]
        return number

    meeting: dict[tuple[int, int, int], list[int]] = defaultdict(list)  # one window, another one, a class
    for number, piece in enumerate(pieces):
        for other in piece.parts:
            meeting[piece.window, other, piece.category].append(number)
    for (one, other, category), ours in meeting.items():
        theirs = meeting.get((other, one, category), [])
        for pair in _same(pieces, ours, theirs) if one < other else ():
            low, high = sorted(map(first, pair))
            group[high] = low
    found: dict[int, list[Piece]] = defaultdict(list)
    for number, piece in enumerate(pieces):
        found[first(number)].append(piece)
    return list(found.values())


def _same(pieces: Sequence[Piece], ours: Sequence[int], theirs: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs of pieces of two windows, by their numbers, that are one object."""
    if not ours or not theirs:
        return
    one, other = pieces[ours[0]].window, pieces[theirs[0]].window
    overlap = coco_mask.iou(
        [pieces[number].parts[other] for number in ours],
        [pieces[number].parts[one] for number in theirs],
        [0] * len(theirs),
    )

    def rank(place: tuple[int, int]) -> tuple[float, float]:
        return min(pieces[ours[place[0]]].score, pieces[theirs[place[1]]].score), overlap[place]

    places = zip(*(axis.tolist() for axis in np.nonzero(overlap >= SAME)), strict=True)
    taken: tuple[set[int], set[int]] = set(), set()
    for a, b in sorted(places, key=rank, reverse=True):
        if a not in taken[0] and b not in taken[1]:
            taken[0].add(a)
            taken[1].add(b)
            yield ours[a], theirs[b]


def _zones(window: Window, windows: Sequence[Window]) -> dict[int, tuple[slice, slice]]:
    """Which rows and columns of a window other windows show, by the numbers of these."""
    found = {}
    for number, other in enumerate(windows):
        rows, columns = (
            slice(max(a.start, b.start) - a.start, min(a.stop, b.stop) - a.start)
            for a, b in ((window.rows, other.rows), (window.columns, other.columns))
        )
        if other is not window and rows.start < rows.stop and columns.start < columns.stop:
            found[number] = rows, columns
    return found


def _parts(mask: RunLengths, zones: Mapping[int, tuple[slice, slice]]) -> dict[int, RunLengths]:
    """What of a mask lies in each zone where it has pixels."""
    pixels = coco_mask.decode(mask)
    shown = {number: pixels[zone] for number, zone in zones.items()}
    return {number: coco_mask.encode(np.asfortranarray(part)) for number, part in shown.items() if part.any()}


def _whole(pieces: Sequence[Piece], windows: Sequence[Window]) -> Whole:
    """The object of these pieces."""
    places = []
    for piece in pieces:
        left, top, width, height = (round(value) for value in coco_mask.toBbox(piece.mask))
        y, x = windows[piece.window].rows.start, windows[piece.window].columns.start
        places.append((y + top, x + left, y + top + height, x + left + width))
    tops, lefts, bottoms, rights = zip(*places, strict=True)
    top, left = min(tops), min(lefts)
    mask = np.zeros((max(bottoms) - top, max(rights) - left), bool)
    for piece, (y0, x0, y1, x1) in zip(pieces, places, strict=True):
        rows, columns = windows[piece.window].rows, windows[piece.window].columns
        shown = coco_mask.decode(piece.mask)[y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start]
        mask[y0 - top : y1 - top, x0 - left : x1 - left] |= shown > 0
    best = max(pieces, key=lambda piece: (int(coco_mask.area(piece.mask)), piece.score))
    return Whole(best.category, best.score, slice(top, max(bottoms)), slice(left, max(rights)), mask)
