"""What a model found in one picture, to look at and to work with: segments with names, a drawing, files."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.geometry import letterbox, resize_image
from oneformer_jax.postprocess.results import Result, Thresholds
from oneformer_jax.postprocess.segments import Segment, segments_of
from oneformer_jax.predict.draw import draw_result
from oneformer_jax.predict.formats.coco import coco_of
from oneformer_jax.predict.formats.detections import detections_of
from oneformer_jax.predict.formats.labelme import labelme_of
from oneformer_jax.predict.selection import classes_named, only
from oneformer_jax.predict.write import write_image
from oneformer_jax.tasks import RICHEST_FIRST, Task

SHOWN_EDGE = 1024
"""Pixels of the longer edge that a notebook shows."""
NAMED = 6
"""Classes that the short form of a prediction names."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Prediction(Result):
    """The result of `Predictor.predict`, with the picture and the classes that it is of. Can be pickled; a notebook
    shows the drawing.

    Drawings show the instances that reach `min_score`. Where a method takes a task, None is the first of `tasks`, and
    it raises ValueError for a task that was not asked for.
    """

    picture: UInt8[np.ndarray, "height width 3"]
    categories: Categories
    min_score: float = Thresholds.object_mask_threshold

    def __repr__(self) -> str:
        height, width = self.picture.shape[:2]
        return f"Prediction({width}x{height}, {', '.join(self.tasks)}: {self._summary()})"

    def _summary(self) -> str:
        """How often the drawing shows which class."""
        lowest = self.min_score if self.tasks[0] == "instance" else 0.0
        count = Counter(found.name for found in self.segments if found.score is None or found.score >= lowest)
        names = [f"{number} {name}" if number > 1 else name for name, number in count.most_common()]
        more = [f"{len(names) - NAMED} more classes"] * (len(names) > NAMED)
        return ", ".join([*names[:NAMED], *more]) or "nothing"

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the drawing, made smaller where it is longer than `SHOWN_EDGE`."""
        drawn = self.draw()
        if max(drawn.shape) > SHOWN_EDGE:
            drawn = resize_image(drawn, letterbox(drawn.shape[:2], (SHOWN_EDGE, SHOWN_EDGE)).resized)
        return cv2.imencode(".png", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))[1].tobytes()

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
        their indices."""
        return segments_of(self, task, self.categories)

    def only(self, classes: str | Sequence[str] | None = None, threshold: float | None = None) -> "Prediction":
        """The same with the segments, instances and pixels of `classes` alone (names, or one text with commas; None:
        all), and of segments and instances those that reach `threshold`, which is then `min_score`. Pixels of a class
        map have no score; those of other classes become -1. Raises DataError: a class that there is not."""
        named = None if classes is None else [classes] if isinstance(classes, str) else classes
        chosen = None if named is None else classes_named(named, self.categories)
        kept = only(self, chosen, threshold or 0.0)
        min_score = self.min_score if threshold is None else threshold
        return replace(
            self, semantic=kept.semantic, instance=kept.instance, panoptic=kept.panoptic, min_score=min_score
        )

    def draw(self, task: Task | None = None, *, names: bool = True) -> UInt8[np.ndarray, "h w 3"]:
        """The picture with the segments of a task drawn over it (see `draw_panoptic` for its size), with or without
        `names`."""
        task = task or self.tasks[0]
        return draw_result(self.picture, self, task, self.categories, self.min_score, names=names)

    def save(self, path: Path | str, task: Task | None = None, *, names: bool = True) -> None:
        """Writes what `draw` draws as .jpg or .png. Raises OneFormerError: another suffix, a folder that cannot be
        written."""
        write_image(Path(path), self.draw(task, names=names))

    def to_coco(self, file_name: str = "", task: Task | None = None, *, image_id: int = 1) -> dict[str, Any]:
        """A COCO file of this picture: `images`, `annotations` (a mask as run lengths, box, area and score of each
        segment) and `categories` with the ids of the label map."""
        segments = self.segments_of(task or self.tasks[0])
        return coco_of(segments, self.picture.shape[:2], self.categories, file_name, image_id)

    def to_labelme(self, file_name: str, task: Task | None = None, *, tolerance: float = 1.0) -> dict[str, Any]:
        """What labelme reads beside the picture `file_name`: a polygon for each part of a segment, whose lines leave
        the edge of its pixels by at most `tolerance` pixels (0: never), and a mask where a segment has holes."""
        segments = self.segments_of(task or self.tasks[0])
        return labelme_of(segments, self.picture.shape[:2], file_name, tolerance)

    def to_supervision(self, task: Task | None = None) -> Any:
        """A `supervision.Detections`; `class_id` is the class index, and `data` has the names. Raises OneFormerError:
        the package supervision is not installed."""
        return detections_of(self.segments_of(task or self.tasks[0]))
