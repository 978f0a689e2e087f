"""What a result shows, one by one: segments with names, whatever task they are of."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from pycocotools import mask as coco_mask

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.postprocess.contours import Ring, contours
from oneformer_jax.postprocess.instance import RunLengths
from oneformer_jax.postprocess.results import Result
from oneformer_jax.tasks import Task

Mask = Bool[np.ndarray, "height width"]


@dataclass(frozen=True)
class Segment:
    """A panoptic segment, an instance, or all pixels of a class in a class map.

    `category` is the class index, `name` that of the class, `score` from 0 to 1, None in a class map. `box` is (left,
    top, right, bottom) in pixels of the picture, the last two exclusive; `area` counts pixels.
    """

    name: str
    category: int
    score: float | None
    box: tuple[int, int, int, int]
    area: int
    _mask: Callable[[], Mask] = field(repr=False, compare=False)

    @property
    def mask(self) -> Mask:
        """Which pixels of the picture belong to it; made anew each time."""
        return self._mask()

    @property
    def run_lengths(self) -> RunLengths:
        """The mask in COCO's compressed run lengths, as pycocotools encodes it."""
        return coco_mask.encode(np.asfortranarray(self.mask.view(np.uint8)))

    @property
    def inner_mask(self) -> Bool[np.ndarray, "h w"]:
        """The part of the mask that `box` holds."""
        left, top, right, bottom = self.box
        return self.mask[top:bottom, left:right]

    @property
    def contours(self) -> tuple[Ring, ...]:
        """Closed lines (n, 2) of corners (x, y) that bound exactly the pixels of the mask: outer ones go clockwise,
        those around holes the other way (see `postprocess.contours`)."""
        return tuple(ring + self.box[:2] for ring in contours(self.inner_mask))


def segments_of(result: Result, task: Task, categories: Categories) -> tuple[Segment, ...]:
    """Panoptic segments by their ids, instances, best first, or classes by their indices.

    Raises ValueError: the result has none of the task.
    """
    if task == "panoptic" and result.panoptic is not None:
        return tuple(_panoptic(result, categories))
    if task == "instance" and result.instance is not None:
        return tuple(_instances(result, categories))
    if task == "semantic" and result.semantic is not None:
        return tuple(_classes(result.semantic, categories))
    raise ValueError(f"no {task} result")


def _panoptic(result: Result, categories: Categories) -> Iterator[Segment]:
    assert result.panoptic is not None
    ids = result.panoptic.ids
    for found in result.panoptic.segments:
        name = categories.name_of(found.category)
        yield Segment(name, found.category, found.score, *_extent(ids, found.id), partial(_equal, ids, found.id))


def _instances(result: Result, categories: Categories) -> Iterator[Segment]:
    for found in result.instance or ():
        left, top, width, height = (round(value) for value in found.box)
        box, area = (left, top, left + width, top + height), int(coco_mask.area(found.mask))
        name = categories.name_of(found.category)
        yield Segment(name, found.category, found.score, box, area, partial(_decoded, found.mask))


def _classes(class_map: Shaped[np.ndarray, "h w"], categories: Categories) -> Iterator[Segment]:
    for category in np.unique(class_map[class_map >= 0]).tolist():
        name = categories.name_of(category)
        yield Segment(name, category, None, *_extent(class_map, category), partial(_equal, class_map, category))


def _extent(numbers: Shaped[np.ndarray, "h w"], number: int) -> tuple[tuple[int, int, int, int], int]:
    """Box and area of the pixels that have a number."""
    mask: UInt8[np.ndarray, "h w"] = (numbers == number).view(np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    return (left, top, left + width, top + height), int(cv2.countNonZero(mask))


def _equal(numbers: Shaped[np.ndarray, "height width"], number: int) -> Mask:
    return np.asarray(numbers == number)


def _decoded(mask: RunLengths) -> Mask:
    return np.asarray(coco_mask.decode(mask) > 0)
