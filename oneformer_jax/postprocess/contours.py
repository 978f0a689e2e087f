"""The outlines of a mask, along the edges of its pixels."""

import numpy as np
from jaxtyping import Bool, Int64

Ring = Int64[np.ndarray, "n 2"]
"""The corners (x, y) of a closed line, in pixels from the corner of the first pixel."""


def contours(mask: Bool[np.ndarray, "h w"]) -> tuple[Ring, ...]:
    """Closed lines that bound exactly the pixels of a mask: whatever lies inside an odd number of them belongs to it.

    Outer lines go clockwise as a picture is seen, those around holes the other way. Pixels that touch in a corner alone
    have lines of their own. Every corner is a turn. Lines are sorted by their uppermost, then leftmost corner.
    """
    padded = np.pad(mask, 1)
    upper_left, upper_right, lower_left, lower_right = (
        padded[rows, columns] for rows in (slice(-1), slice(1, None)) for columns in (slice(-1), slice(1, None))
    )
    turns = upper_left ^ upper_right ^ lower_left ^ lower_right
    crossings = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
    # Two lines turn in a crossing: first the one that goes to the left from there, then the one to the right.
    times = turns + 2 * crossings
    y, x = (np.repeat(axis, times[times > 0]) for axis in np.nonzero(times))
    is_second = np.zeros(len(y), bool)
    is_second[1:] = (y[1:] == y[:-1]) & (x[1:] == x[:-1])
    # Along a row, corners 0 and 1, 2 and 3, ... are the ends of a line; along a column in the order of `down`.
    goes_down = is_second ^ (crossings & upper_right)[y, x]
    down = np.lexsort((goes_down, y, x))
    above_or_below = np.empty(len(down), np.int64)
    above_or_below[down[::2]], above_or_below[down[1::2]] = down[1::2], down[::2]
    corners, inside = np.stack([x, y], axis=-1), lower_right[y, x]
    rings = []
    for line in _closed(above_or_below):
        # What lies right of the first corner and below it is in the mask, or in a hole of it.
        rings.append(corners[line] if inside[line[0]] else corners[[line[0], *line[:0:-1]]])
    return tuple(rings)


def _closed(above_or_below: Int64[np.ndarray, " c"]) -> list[list[int]]:
    """The corners of each line, in turn along a row and along a column; the first goes to the right, then down."""
    partner, seen, lines = above_or_below.tolist(), bytearray(len(above_or_below)), list[list[int]]()
    for start in range(len(partner)):
        if seen[start]:
            continue
        line, place = list[int](), start
        while not seen[place]:
            other = place ^ 1
            seen[place] = seen[other] = 1
            line += (place, other)
            place = partner[other]
        lines.append(line)
    return lines
