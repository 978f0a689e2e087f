"""Pictures of results: coloured segments, contours and class names over the image."""

import colorsys
import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Int32, Integer, UInt8
from PIL import Image, ImageDraw, ImageFont
from pycocotools import mask as coco_mask

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.postprocess.results import Instance, PanopticResult

MIN_SHORT_EDGE = 320  # smaller pictures are enlarged, or no label would be readable
MIN_INSTANCE_SCORE = 0.4
_OPACITY = 0.55
_GOLDEN_RATIO = 0.6180339887498949

Color = tuple[int, int, int]
Picture = UInt8[np.ndarray, "_ _ 3"]


class _Region(NamedTuple):
    color: Color
    label: str


def draw_panoptic(image: Picture, result: PanopticResult, categories: Categories) -> Picture:
    """Segments in the colours of their classes, things of one class in different shades.

    All drawings have the size of the image, times a whole number where its short edge is below `MIN_SHORT_EDGE`.
    """
    seen: dict[int, int] = {}
    regions = []
    for segment in result.segments:
        number = seen.setdefault(segment.category, 0)
        seen[segment.category] += 1
        regions.append(_region(segment.category, categories, number))
    return _draw(image, result.ids, regions)


def draw_semantic(image: Picture, class_map: Integer[np.ndarray, "h w"], categories: Categories) -> Picture:
    """Every class in its colour; negative values (void) stay as they are."""
    regions = [_region(category, categories, 0) for category in range(int(class_map.max()) + 1)]
    return _draw(image, class_map.astype(np.int32) + 1, regions)


def draw_instances(
    image: Picture, instances: Sequence[Instance], categories: Categories, min_score: float = MIN_INSTANCE_SCORE
) -> Picture:
    """Instances that reach `min_score`, the best on top, labelled with their scores in percent."""
    chosen = sorted((i for i in instances if i.score >= min_score), key=lambda instance: instance.score)
    ids = np.zeros(image.shape[:2], np.int32)
    regions = []
    for number, instance in enumerate(chosen, start=1):
        ids[coco_mask.decode(instance.mask) > 0] = number
        region = _region(instance.category, categories, number)
        regions.append(region._replace(label=f"{region.label} {100 * instance.score:.0f}%"))
    return _draw(image, ids, regions)


def _region(category: int, categories: Categories, number: int) -> _Region:
    """A class index beyond the categories is an output of the model that has no name."""
    if category >= len(categories):
        return _Region((128, 128, 128), f"class {category}")
    item = categories.items[category]
    return _Region(_shade(item.color, number), item.name)


def _shade(color: Color, number: int) -> Color:
    """Number 0 is the colour itself, the others differ from it in lightness and a little in hue."""
    if number == 0:
        return color
    offset = (number * _GOLDEN_RATIO + 0.5) % 1.0 - 0.5  # spreads evenly however many there are
    hue, lightness, saturation = colorsys.rgb_to_hls(*(value / 255 for value in color))
    lightness = min(0.75, max(0.25, lightness + 0.5 * offset))
    red, green, blue = colorsys.hls_to_rgb((hue + 0.1 * offset) % 1.0, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def _draw(image: Picture, ids: Int32[np.ndarray, "h w"], regions: Sequence[_Region]) -> Picture:
    """`ids` are positions in `regions` counted from 1; 0 is left as it is."""
    factor = math.ceil(MIN_SHORT_EDGE / min(image.shape[:2]))
    if factor > 1:
        size = (image.shape[1] * factor, image.shape[0] * factor)
        image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        ids = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)
    colors = np.array([(0, 0, 0), *(region.color for region in regions)], np.uint8)
    blended = cv2.addWeighted(image, 1 - _OPACITY, colors[ids], _OPACITY, 0)
    picture = np.where((ids > 0)[..., None], blended, image)
    _draw_contours(picture, ids)
    return _draw_labels(picture, ids, regions)


def _draw_contours(picture: Picture, ids: Int32[np.ndarray, "h w"]) -> None:
    """White lines with a dark rim between segments, in place: visible on bright and on dark ground."""
    border = np.zeros(ids.shape, np.uint8)
    border[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    border[1:] |= ids[1:] != ids[:-1]
    width = max(1, round(min(ids.shape) / 500))
    line = cv2.dilate(border, np.ones((width, width), np.uint8)) > 0
    rim = cv2.dilate(border, np.ones((width + 2, width + 2), np.uint8)) > 0
    picture[rim] = (picture[rim] * 0.45).astype(np.uint8)
    picture[line] = 245


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


def _draw_labels(picture: Picture, ids: Int32[np.ndarray, "h w"], regions: Sequence[_Region]) -> Picture:
    """Names inside their segments, large segments first; a label without room is left out."""
    page = Image.fromarray(picture)
    brush = ImageDraw.Draw(page, "RGBA")
    base = min(48.0, max(12.0, min(ids.shape) / 32))
    areas = np.bincount(ids.ravel(), minlength=len(regions) + 1)
    taken: list[_Box] = []
    for number in (np.argsort(-areas[1:], kind="stable") + 1).tolist():
        region = regions[number - 1]
        if areas[number] < base * base:
            continue
        for size in (base, max(11.0, 0.8 * base)):
            font = ImageFont.load_default(size)
            text_left, text_top, text_right, text_bottom = font.getbbox(region.label, anchor="lt")
            width, height = (math.ceil(n + 0.5 * size) for n in (text_right - text_left, text_bottom - text_top))
            box = _place(ids == number, width, height, taken)
            if box is not None:
                taken.append(box)
                dark = tuple(value * 2 // 5 for value in region.color)
                brush.rounded_rectangle(
                    (box.left, box.top, box.right - 1, box.bottom - 1), radius=0.25 * size, fill=(*dark, 215)
                )
                centre = ((box.left + box.right) / 2, (box.top + box.bottom) / 2)
                brush.text(centre, region.label, fill=(255, 255, 255), font=font, anchor="mm")
                break
    return np.asarray(page)


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
