"""The pictures of an evaluation that are worth a look: those with the worst and with the best results."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from pycocotools import mask as coco_mask

from oneformer_jax.data.geometry import Size
from oneformer_jax.evaluation.metrics import GroundTruth, count_segments
from oneformer_jax.postprocess.results import Instance, PanopticResult, PanopticSegment, Result


class Seen(NamedTuple):
    """The image of this number in its data set, how good its result is, and the result."""

    quality: float
    number: int
    result: Result


class Gallery:
    """Shown all images one after the other (`Evaluator.run`), it keeps so many of the worst and of the best."""

    def __init__(self, worst: int, best: int) -> None:
        self._room = worst, best
        self._heaps: tuple[list[tuple[float, int, Seen]], ...] = ([], [])

    def __call__(self, number: int, quality: float, result: Result) -> None:
        """An image; one whose quality is not defined is left out."""
        if math.isnan(quality):
            return
        seen = Seen(quality, number, result)
        for heap, room, sign in zip(self._heaps, self._room, (-1, 1), strict=True):
            entry = (sign * quality, -number, seen)  # the first one goes where there is no room
            if len(heap) < room:
                heapq.heappush(heap, entry)
            elif room:
                heapq.heappushpop(heap, entry)

    @property
    def worst(self) -> list[Seen]:
        """From the worst on."""
        return [seen for _, _, seen in sorted(self._heaps[0], key=lambda entry: entry[:2], reverse=True)]

    @property
    def best(self) -> list[Seen]:
        """From the best on; none that is among the worst."""
        known = {seen.number for seen in self.worst}
        ordered = sorted(self._heaps[1], key=lambda entry: entry[:2], reverse=True)
        return [seen for _, _, seen in ordered if seen.number not in known]


def as_panoptic(result: Result, size: Size, min_score: float) -> PanopticResult:
    """What a result shows of the task that tells most, one segment a pixel, numbered from 1: of instances those that
    reach `min_score`, the best on top."""
    if result.panoptic is not None:
        return result.panoptic
    if result.semantic is not None:
        classes = np.unique(result.semantic).tolist()
        segments = tuple(PanopticSegment(n, k, False, 1.0, 0) for n, k in enumerate(classes, start=1))
        return PanopticResult(np.searchsorted(classes, result.semantic).astype(np.int32) + 1, segments)
    return _painted([found for found in result.instance or () if found.score >= min_score], size)


def _painted(instances: Sequence[Instance], size: Size) -> PanopticResult:
    ids, segments = np.zeros(size, np.int32), []
    for number, found in enumerate(sorted(instances, key=lambda one: one.score), start=1):
        ids[coco_mask.decode(found.mask) > 0] = number
        segments.append(PanopticSegment(number, found.category, True, found.score, 0))
    return PanopticResult(ids, tuple(segments))


def things_alone(truth: GroundTruth, is_thing: Bool[np.ndarray, " k"]) -> GroundTruth:
    """The annotation without stuff, whose pixels are void then."""
    kept = np.append(is_thing[truth.categories], False)  # -1 is void already
    return replace(truth, planes=np.where(kept[truth.planes], truth.planes, np.int16(-1)))


def quality_of_things(
    instances: Sequence[Instance], truth: GroundTruth, is_thing: Bool[np.ndarray, " k"], min_score: float
) -> float:
    """PQ of the instances that reach `min_score`, with all classes as one; NaN where none is annotated or found."""
    shown = [found for found in instances if found.score >= min_score]
    things = things_alone(truth, is_thing)
    things = replace(things, iscrowd=things.iscrowd | ~is_thing[things.categories])  # stuff is nothing to miss
    return count_segments(_painted(shown, truth.index.shape), things, len(is_thing)).quality
