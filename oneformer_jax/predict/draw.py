"""Pictures of results: coloured segments, contours and class names over the image."""

import colorsys
import math
import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Int32, Integer, UInt8
from pycocotools import mask as coco_mask

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.geometry import letterbox, resize_image
from oneformer_jax.postprocess.results import Instance, PanopticResult, Result, Thresholds
from oneformer_jax.predict.fonts import drawable
from oneformer_jax.predict.labels import Color, Label, draw_labels
from oneformer_jax.tasks import Task

MIN_SHORT_EDGE = 320  # smaller pictures are enlarged, or no label would be readable
MAX_ENLARGED_EDGE = 4096
MAX_EDGE = 65_500  # of a JPEG
_OPACITY = 0.55
_GOLDEN_RATIO = 0.6180339887498949
_LONGEST_NAME = 40  # characters

Picture = UInt8[np.ndarray, "_ _ 3"]


def draw_result(
    image: Picture,
    result: Result,
    task: Task,
    categories: Categories,
    min_score: float = Thresholds.object_mask_threshold,
    *,
    names: bool = True,
) -> Picture:
    """What a result has of a task. Raises ValueError: nothing."""
    if task == "panoptic" and result.panoptic is not None:
        return draw_panoptic(image, result.panoptic, categories, names=names)
    if task == "semantic" and result.semantic is not None:
        return draw_semantic(image, result.semantic, categories, names=names)
    if task == "instance" and result.instance is not None:
        return draw_instances(image, result.instance, categories, min_score, names=names)
    raise ValueError(f"no {task} result")


def draw_panoptic(
    image: Picture, result: PanopticResult, categories: Categories, *, scores: bool = True, names: bool = True
) -> Picture:
    """Segments in the colours of their classes, things of one class in different shades; the truth has no `scores`.
    Without `names`, nothing is written over the picture.

    All drawings have the size of the image, times a whole number where its short edge is below `MIN_SHORT_EDGE` (as far
    as its long edge stays within `MAX_ENLARGED_EDGE`), and fitted into `MAX_EDGE` where it is longer.
    """
    seen: dict[int, int] = {}
    labels = []
    for segment in result.segments:
        number = seen.setdefault(segment.category, 0)
        seen[segment.category] += 1
        labels.append(_label(segment.category, categories, number, segment.score if scores else None))
    return _draw(image, result.ids, labels, names)


def draw_semantic(
    image: Picture, class_map: Integer[np.ndarray, "h w"], categories: Categories, *, names: bool = True
) -> Picture:
    """Every class in its colour; negative values (void) stay as they are."""
    labels = [_label(category, categories) for category in range(int(class_map.max()) + 1)]
    return _draw(image, class_map.astype(np.int32) + 1, labels, names)


def draw_instances(
    image: Picture,
    instances: Sequence[Instance],
    categories: Categories,
    min_score: float = Thresholds.object_mask_threshold,
    *,
    names: bool = True,
) -> Picture:
    """Instances that reach `min_score`, the best on top, with their scores in percent."""
    chosen = sorted((i for i in instances if i.score >= min_score), key=lambda instance: instance.score)
    ids = np.zeros(image.shape[:2], np.int32)
    labels = []
    for number, instance in enumerate(chosen, start=1):
        ids[coco_mask.decode(instance.mask) > 0] = number
        labels.append(_label(instance.category, categories, number, instance.score))
    return _draw(image, ids, labels, names)


def _label(category: int, categories: Categories, number: int = 0, score: float | None = None) -> Label:
    """A class index beyond the categories is an output of the model that has no name."""
    color, name = (128, 128, 128), f"class {category}"
    if category < len(categories):
        item = categories.items[category]
        line = unicodedata.normalize("NFC", " ".join(item.name.split()))
        line = line if len(line) <= _LONGEST_NAME else f"{line[: _LONGEST_NAME - 3]}..."
        color, name = item.color, drawable(line, name) if line else name
    return Label(name, "" if score is None else f"{100 * score:.0f}%", _shade(color, number), color)


def _shade(color: Color, number: int) -> Color:
    """Number 0 is the colour itself, the others differ from it in lightness and a little in hue."""
    if number == 0:
        return color
    offset = (number * _GOLDEN_RATIO + 0.5) % 1.0 - 0.5  # spreads evenly however many there are
    hue, lightness, saturation = colorsys.rgb_to_hls(*(value / 255 for value in color))
    lightness = min(0.75, max(0.25, lightness + 0.5 * offset))
    red, green, blue = colorsys.hls_to_rgb((hue + 0.1 * offset) % 1.0, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def _draw(image: Picture, ids: Int32[np.ndarray, "h w"], labels: Sequence[Label], names: bool) -> Picture:
    """`ids` are positions in `labels` counted from 1; 0 is left as it is."""
    image, ids = _sized(image, ids)
    colors = np.array([(0, 0, 0), *(label.color for label in labels)], np.uint8)
    blended = cv2.addWeighted(image, 1 - _OPACITY, colors[ids], _OPACITY, 0)
    picture = np.where((ids > 0)[..., None], blended, image)
    _draw_contours(picture, ids)
    return draw_labels(picture, ids, labels) if names else picture


def _sized(image: Picture, ids: Int32[np.ndarray, "h w"]) -> tuple[Picture, Int32[np.ndarray, "h2 w2"]]:
    height, width = image.shape[:2]
    short, long = min(height, width), max(height, width)
    factor = max(1, min(math.ceil(MIN_SHORT_EDGE / short), MAX_ENLARGED_EDGE // long))
    if factor > 1:
        size = (width * factor, height * factor)
        image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    elif long > MAX_EDGE:
        resized = letterbox((height, width), (MAX_EDGE, MAX_EDGE)).resized
        image, size = resize_image(image, resized), resized[::-1]
    else:
        return image, ids
    return image, cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)


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
