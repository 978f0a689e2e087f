"""What a model found in one picture, to look at and to work with: segments with names, a drawing, files."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Shaped, UInt8
from pycocotools import mask as coco_mask

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.postprocess.instance import RunLengths
from oneformer_jax.postprocess.results import Result, Thresholds
from oneformer_jax.predict.draw import draw_result
from oneformer_jax.predict.write import write_image
from oneformer_jax.tasks import RICHEST_FIRST, Task

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


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Prediction(Result):
    """The result of `Predictor.predict`, with the picture and the classes that it is of. Can be pickled.

    Drawings show the instances that reach `min_score`.
    """

    picture: UInt8[np.ndarray, "height width 3"]
    categories: Categories
    min_score: float = Thresholds.object_mask_threshold

    def __repr__(self) -> str:
        height, width = self.picture.shape[:2]
        return f"Prediction({width}x{height}: {', '.join(self.tasks)})"

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Those that were asked for. The first is the one that is listed and drawn where none is named."""
        return tuple(task for task in RICHEST_FIRST if getattr(self, task) is not None)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """Those of the first of `tasks`."""
        return self.segments_of(self.tasks[0])

    def segments_of(self, task: Task) -> tuple[Segment, ...]:
        """What the result of a task shows: panoptic segments by their ids, all instances, best first, or classes by
        their indices. Raises ValueError: the task was not asked for."""
        found: dict[Task, Callable[[], Iterator[Segment]]] = {
            "panoptic": self._panoptic_segments,
            "instance": self._instances,
            "semantic": self._classes,
        }
        if task not in self.tasks:
            raise ValueError(f"no {task} result")
        return tuple(found[task]())

    def draw(self, task: Task | None = None, *, names: bool = True) -> UInt8[np.ndarray, "h w 3"]:
        """The picture with the segments of a task (see `tasks`) drawn over it (see `draw_panoptic` for its size), with
        or without `names`. Raises ValueError: the task was not asked for."""
        task = task or self.tasks[0]
        return draw_result(self.picture, self, task, self.categories, self.min_score, names=names)

    def save(self, path: Path | str, task: Task | None = None, *, names: bool = True) -> None:
        """Writes what `draw` draws as .jpg or .png. Raises as that does, and OneFormerError: another suffix, a folder
        that cannot be written."""
        write_image(Path(path), self.draw(task, names=names))

    def _panoptic_segments(self) -> Iterator[Segment]:
        if self.panoptic is not None:
            ids = self.panoptic.ids
            for found in self.panoptic.segments:
                name = self.categories.name_of(found.category)
                yield Segment(
                    name, found.category, found.score, *_extent(ids, found.id), partial(_equal, ids, found.id)
                )

    def _instances(self) -> Iterator[Segment]:
        for found in self.instance or ():
            left, top, width, height = (round(value) for value in found.box)
            box, area = (left, top, left + width, top + height), int(coco_mask.area(found.mask))
            name = self.categories.name_of(found.category)
            yield Segment(name, found.category, found.score, box, area, partial(_decoded, found.mask))

    def _classes(self) -> Iterator[Segment]:
        if self.semantic is not None:
            class_map = self.semantic
            for category in np.unique(class_map[class_map >= 0]).tolist():
                name = self.categories.name_of(category)
                yield Segment(name, category, None, *_extent(class_map, category), partial(_equal, class_map, category))


def _extent(numbers: Shaped[np.ndarray, "h w"], number: int) -> tuple[tuple[int, int, int, int], int]:
    """Box and area of the pixels that have a number."""
    mask = (numbers == number).view(np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    return (left, top, left + width, top + height), int(cv2.countNonZero(mask))


def _equal(numbers: Shaped[np.ndarray, "height width"], number: int) -> Mask:
    return np.asarray(numbers == number)


def _decoded(mask: RunLengths) -> Mask:
    return np.asarray(coco_mask.decode(mask) > 0)
