"""Logits of the windows of a picture to its finished results.

semantic: votes are blended (`blending`). instance and panoptic: objects are found in each window, those of several
windows joined by what these share (`joining`), and never cut at a seam. Stuff has the class that the window says to
whose middle a pixel is nearest, or where that one has none, any other. Things lie on top of it, the best first; one
that keeps less of its mask than `overlap_threshold` is dropped, as in one window.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int32, Shaped
from pycocotools import mask as coco_mask

from oneformer_jax.data.geometry import Geometry, Size
from oneformer_jax.postprocess.blending import Blending
from oneformer_jax.postprocess.joining import Joining
from oneformer_jax.postprocess.results import (
    ImageLogits,
    Instance,
    PanopticResult,
    PanopticSegment,
    Result,
    RunLengths,
    Thresholds,
    finished_result,
    not_finite,
)
from oneformer_jax.postprocess.tiles import softmax
from oneformer_jax.postprocess.windows import Window
from oneformer_jax.tasks import Task

STRIP = 512
"""Rows that are worked on at once."""


class Assembled:
    """The results of a picture of (height, width), from its `windows`, which overlap by at least `overlap` pixels."""

    def __init__(
        self,
        size: Size,
        windows: Sequence[Window],
        overlap: int,
        is_thing: Bool[np.ndarray, " k"],
        thresholds: Thresholds,
        tasks: Sequence[Task],
    ) -> None:
        self._size, self._windows, self._tasks = size, windows, tasks
        self._is_thing, self._thresholds = is_thing, thresholds
        self._blending = Blending(size, windows, overlap, len(is_thing)) if "semantic" in tasks else None
        self._instances, self._things = Joining(windows), Joining(windows)
        # A class of stuff and 1, 0 for none; and the best score of each.
        self._stuff = np.zeros(size if "panoptic" in tasks else (0, 0), np.min_scalar_type(len(is_thing)))
        self._stuff_scores: dict[int, float] = {}

    def add(self, number: int, logits: Mapping[Task, ImageLogits], geometry: Geometry) -> None:
        """The window of this number; they come in order. Raises OneFormerError: logits that are not finite."""
        objects: dict[Task, ImageLogits] = {task: of_task for task, of_task in logits.items() if task != "semantic"}
        found = finished_result(objects, geometry, self._is_thing, self._thresholds)
        self._instances.add(number, ((one.category, one.score, one.mask) for one in found.instance or ()))
        if found.panoptic is not None:
            self._add_panoptic(number, found.panoptic)
        if self._blending is not None:
            class_logits, mask_logits = logits["semantic"]
            if not np.isfinite(class_logits).all():
                raise not_finite()
            probabilities = softmax(class_logits.astype(np.float32, copy=False))[:, :-1]
            self._blending.add(number, probabilities, mask_logits, geometry)

    def result(self) -> Result:
        """Of all windows, which have been added."""
        return Result(
            None if self._blending is None else self._blending.classes,
            self._joined_instances() if "instance" in self._tasks else None,
            self._joined_panoptic() if "panoptic" in self._tasks else None,
        )

    def _add_panoptic(self, number: int, found: PanopticResult) -> None:
        class_of, things = np.zeros(1 + len(found.segments), self._stuff.dtype), list[tuple[int, float, RunLengths]]()
        for segment in found.segments:
            if segment.isthing:
                mask = coco_mask.encode(np.asfortranarray(found.ids == segment.id).view(np.uint8))
                things.append((segment.category, segment.score, mask))
            else:
                class_of[segment.id] = segment.category + 1
                known = self._stuff_scores.get(segment.category, 0.0)
                self._stuff_scores[segment.category] = max(known, segment.score)
        self._things.add(number, things)
        window, classes = self._windows[number], class_of[found.ids]
        is_own = np.zeros(window.size, bool)
        own = (
            slice(part.start - all_.start, part.stop - all_.start)
            for part, all_ in ((window.own_rows, window.rows), (window.own_columns, window.columns))
        )
        is_own[tuple(own)] = True
        shown = self._stuff[window.rows, window.columns]
        np.copyto(shown, classes, where=(classes > 0) & (is_own | (shown == 0)))

    def _joined_instances(self) -> tuple[Instance, ...]:
        instances = []
        for found in self._instances.wholes():
            mask = found.run_lengths(self._size)
            left, top, width, height = coco_mask.toBbox(mask).tolist()
            instances.append(Instance(found.category, found.score, mask, (left, top, width, height)))
        return tuple(instances)

    def _joined_panoptic(self) -> PanopticResult:
        ids, segments = np.zeros(self._size, np.int32), list[PanopticSegment]()
        for found in self._things.wholes():
            shown = ids[found.rows, found.columns]
            free = found.mask & (shown == 0)
            area = int(np.count_nonzero(free))
            if area and area / np.count_nonzero(found.mask) >= self._thresholds.overlap_threshold:
                shown[free] = len(segments) + 1
                segments.append(PanopticSegment(len(segments) + 1, found.category, True, found.score, area))
        return PanopticResult(ids, (*segments, *self._paint_stuff(ids, len(segments))))

    def _paint_stuff(self, ids: Int32[np.ndarray, "height width"], taken: int) -> list[PanopticSegment]:
        """Where no thing is; ids after those that are taken."""
        strips = [slice(start, start + STRIP) for start in range(0, self._size[0], STRIP)]
        areas = np.zeros(1 + len(self._is_thing), np.int64)
        for strip in strips:
            areas += _count(self._stuff[strip], ids[strip] == 0, len(areas))
        shown = [category for category in sorted(self._stuff_scores) if areas[category + 1]]
        number_of = np.zeros(len(areas), np.int32)
        number_of[np.array(shown, np.int64) + 1] = taken + 1 + np.arange(len(shown))
        for strip in strips:
            np.copyto(ids[strip], number_of[self._stuff[strip]], where=ids[strip] == 0)
        return [
            PanopticSegment(number, category, False, self._stuff_scores[category], int(areas[category + 1]))
            for number, category in enumerate(shown, start=taken + 1)
        ]


def _count(
    numbers: Shaped[np.ndarray, "h w"], where: Bool[np.ndarray, "h w"], count: int
) -> Shaped[np.ndarray, " count"]:
    return np.bincount(numbers[where], minlength=count)
