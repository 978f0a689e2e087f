"""Class names on a drawing: inside their segments where there is room, in a legend in a corner where there is none."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8
from PIL import Image, ImageDraw

from oneformer_jax.predict.fonts import font_for

Color = tuple[int, int, int]

_SMALLEST = 11.0  # pixels of a letter's height that can be read
_LEGEND = 0.5  # of the picture's height, at most
_GAP = 0.4  # between two parts of a text, of a letter's height


class Label(NamedTuple):
    """The name of a segment's class and what stands behind it, the colour of the segment and that of the class."""

    name: str
    score: str
    color: Color
    class_color: Color


class _Box(NamedTuple):
    """Pixels left, top, right, bottom (exclusive)."""

    left: int
    top: int
    right: int
    bottom: int

    def meets(self, other: "_Box") -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def letter_size(height: int, width: int) -> float:
    """Pixels of a letter's height: a share of the picture, whatever its size."""
    return max(12.0, min(height, width) / 32)


def draw_labels(
    picture: UInt8[np.ndarray, "h w 3"], ids: Int32[np.ndarray, "h w"], labels: Sequence[Label]
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture with names, large segments first. `ids` are positions in `labels` counted from 1, 0 is none."""
    page = Image.fromarray(picture)
    brush = ImageDraw.Draw(page, "RGBA")
    base = letter_size(*ids.shape)
    areas = np.bincount(ids.ravel(), minlength=len(labels) + 1)
    taken: list[_Box] = []
    nameless: list[Label] = []
    for number in (np.argsort(-areas[1:], kind="stable") + 1).tolist():
        label = labels[number - 1]
        if not areas[number]:
            continue
        for size in (base, max(_SMALLEST, 0.8 * base)) if areas[number] >= base * base else ():
            width, height = _extent((label.name, label.score), size)
            box = _place(ids == number, width, height, taken)
            if box is not None:
                taken.append(box)
                _write(brush, box, label, size)
                break
        else:
            nameless.append(label)
    _draw_legend(brush, nameless, ids, areas, taken)
    return np.asarray(page)


def _extent(parts: Iterable[str], size: float) -> tuple[int, int]:
    """Width and height of parts of a text, each in a font of its own, with a margin, in pixels."""
    boxes = [font_for(part, size).getbbox(part, anchor="lm") for part in parts if part]
    width, height = sum(box[2] for box in boxes), max(box[3] - box[1] for box in boxes)
    margins, gaps = 0.5 * size, _GAP * size * (len(boxes) - 1)
    return math.ceil(width + gaps + margins), math.ceil(max(height, 0.75 * size) + margins)


def _write(brush: ImageDraw.ImageDraw, box: _Box, label: Label, size: float) -> None:
    dark = tuple(value * 2 // 5 for value in label.color)
    brush.rounded_rectangle((box.left, box.top, box.right - 1, box.bottom - 1), radius=0.25 * size, fill=(*dark, 215))
    _write_parts(brush, box.left + 0.25 * size, (box.top + box.bottom) / 2, (label.name, label.score), size)


def _write_parts(brush: ImageDraw.ImageDraw, x: float, y: float, parts: Iterable[str], size: float) -> None:
    for part in parts:
        font = font_for(part, size)
        brush.text((x, y), part, fill=(255, 255, 255), font=font, anchor="lm")
        x += font.getlength(part) + _GAP * size


def _draw_legend(
    brush: ImageDraw.ImageDraw,
    nameless: Sequence[Label],
    ids: Int32[np.ndarray, "h w"],
    areas: Int64[np.ndarray, " n"],
    taken: Sequence[_Box],
) -> None:
    """Names and colours of classes whose segments have no label, the largest first, how many segments, and how many
    classes more there are than fit."""
    counts = Counter(label.name for label in nameless)
    colors = {label.name: label.class_color for label in nameless}
    rows = [(name, f"x{count}" if count > 1 else "", colors[name]) for name, count in counts.items()]
    height, width = ids.shape
    size = max(_SMALLEST, 0.6 * letter_size(height, width))
    step = math.ceil(1.5 * size)
    room = int(_LEGEND * height - 0.5 * size) // step
    if len(rows) > room:
        rows = [*rows[: max(room - 1, 0)], (f"and {len(rows) - max(room - 1, 0)} more", "", (128, 128, 128))]
    if not rows or not room:
        return
    widest = max(_extent(parts, size)[0] for *parts, _ in rows) + step
    margin = round(0.5 * size)
    high = step * len(rows) + margin
    if widest > width or high > height:
        return
    corners = [
        _Box(left, top, left + widest, top + high)
        for top in (height - high - margin, margin)
        for left in (width - widest - margin, margin)
        if left >= 0 and top >= 0
    ] or [_Box(0, 0, widest, high)]

    def hidden(box: _Box) -> tuple[int, float]:
        """How many labels lie behind it, and how much of small segments."""
        behind = areas[ids[box.top : box.bottom, box.left : box.right]]
        return sum(box.meets(other) for other in taken), -float(behind.mean())

    box = min(corners, key=hidden)
    brush.rounded_rectangle((box.left, box.top, box.right - 1, box.bottom - 1), radius=0.25 * size, fill=(0, 0, 0, 215))
    for row, (*parts, color) in enumerate(rows):
        y = box.top + margin / 2 + (row + 0.5) * step
        x, half = box.left + 0.6 * step, 0.35 * size
        brush.rectangle((x - half, y - half, x + half, y + half), fill=color, outline=(245, 245, 245))
        _write_parts(brush, x + 0.5 * step, y, parts, size)


def _place(mask: Bool[np.ndarray, "h w"], width: int, height: int, taken: Sequence[_Box]) -> _Box | None:
    """Where a label goes: wholly inside the segment if it fits, as far from the border as possible; else around the
    widest spot, if that is at least half as high as the label and the segment half as wide."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    crop = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(np.uint8), 1)
    free = crop.copy()
    for box in taken:  # other labels, widened by half of this one, exclude centres
        y0, y1 = box.top - height // 2 - top, box.bottom + height // 2 - top + 2
        x0, x1 = box.left - width // 2 - left, box.right + width // 2 - left + 2
        free[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = 0
    distance = cv2.distanceTransform(crop, cv2.DIST_L2, 5)
    inside = cv2.erode(crop, np.ones((height, width), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    score = np.where(inside * free > 0, distance, 0)
    if not score.any():
        score = np.where((free > 0) & (distance >= height / 4), distance, 0)
        if not score.any() or crop.shape[1] - 2 < width / 2:
            return None
    y, x = np.unravel_index(int(score.argmax()), score.shape)
    box_left = min(max(0, left + int(x) - 1 - width // 2), mask.shape[1] - width)
    box_top = min(max(0, top + int(y) - 1 - height // 2), mask.shape[0] - height)
    placed = _Box(box_left, box_top, box_left + width, box_top + height)
    if box_left < 0 or box_top < 0 or any(placed.meets(box) for box in taken):
        return None
    return placed
