"""Scores any backend on a data set: each task with its own prediction, every image at its original size."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from oneformer_jax.data.datasets.dataset import Dataset, naming
from oneformer_jax.data.datasets.files import DatasetFiles
from oneformer_jax.data.geometry import Geometry, Policy, Size, resize_and_pad
from oneformer_jax.errors import DataError
from oneformer_jax.evaluation.backend import Asked, Backend, Pending, compiling_ahead, pending_results
from oneformer_jax.evaluation.batches import filled
from oneformer_jax.evaluation.gallery import quality_of_things
from oneformer_jax.evaluation.metrics import (
    GroundTruth,
    PanopticCounts,
    Scores,
    TrueInstance,
    confusion_matrix,
    count_segments,
    mask_average_precision,
    panoptic_scores,
    semantic_scores,
    true_instances,
)
from oneformer_jax.postprocess.results import Instance, Result, Thresholds
from oneformer_jax.tasks import TASKS, Task

Progress = Callable[[int, int], None]
"""Called with the number of finished images and of all images."""

Skip = Callable[[DataError], None]
"""Called with what is wrong with an image, which is then left out."""

Stop = Callable[[], bool]
"""Asked before each batch whether to stop."""

See = Callable[[int, float, Result], None]
"""Called with the number of an image, how good its result is, and the result. How good: PQ with all classes as one,
else mIoU, else PQ of the instances that reach the threshold, whichever tasks run; NaN where that is not defined."""

T = TypeVar("T")


class Stopped(Exception):
    """An evaluation was asked to stop before its end."""


@dataclass(frozen=True)
class Metrics:
    """Scores of the tasks that ran. `geometry` names the policy that sized the images.

    The scores are taken over all images; `parts` are those of each data set where there are several. `confusion` are
    the pixels by true and predicted class where semantic ran, `counts` the segments where panoptic did.
    """

    class_names: tuple[str, ...]
    num_images: int
    geometry: str
    scores: Mapping[Task, Scores] = field(default_factory=dict)
    parts: Mapping[str, "Metrics"] = field(default_factory=dict)
    confusion: Int64[np.ndarray, "k k"] | None = None
    counts: PanopticCounts | None = None


@dataclass(frozen=True)
class Scoring:
    """What is scored, and how: `evaluator` makes an `Evaluator` of it once the data set is open.

    `policy` maps an original size to its geometry. `batch_size` counts the images of one device, `workers` are host
    threads. `per_class`: whether a report has the scores of each class too.
    """

    data: DatasetFiles
    tasks: tuple[Task, ...]
    policy: Policy
    thresholds: Thresholds = field(default_factory=Thresholds)
    batch_size: int = 1
    workers: int = 4
    per_class: bool = True

    def evaluator(self, dataset: Dataset, devices: int = 1) -> "Evaluator":
        """The evaluator of the opened data set, for a backend on so many devices."""
        return Evaluator(
            dataset,
            policy=self.policy,
            policy_name=self.policy.name,
            batch_size=self.batch_size * devices,
            tasks=self.tasks,
            thresholds=self.thresholds,
            workers=self.workers,
        )


@dataclass(frozen=True)
class Evaluator:
    """`policy` maps an original size to its geometry; `policy_name` is what the metrics record about it.

    Images of one padded shape form batches of exactly `batch_size` (the last one repeats its last image, and the
    repetitions are not scored), so a backend sees one input shape per padded shape. `workers` host threads read images
    ahead and post-process while the backend computes. Of several processes that `share` the data set (index, count)
    each predicts its images alone; `gather` gives what all of them have found, to all.
    """

    dataset: Dataset
    policy: Callable[[Size], Geometry]
    policy_name: str
    batch_size: int
    tasks: tuple[Task, ...] = TASKS
    thresholds: Thresholds = field(default_factory=Thresholds)
    workers: int = 4
    share: tuple[int, int] = (0, 1)
    gather: Callable[[Any], list[Any]] = field(default=lambda own: [own])

    def run(
        self,
        backend: Backend,
        progress: Progress | None = None,
        skip: Skip | None = None,
        stop: Stop = lambda: False,
        see: See | None = None,
    ) -> Metrics:
        """Predict and score the whole data set, but for what `skip` takes; `see` is shown each image.

        Raises:
            Stopped: in all processes, where `stop` asked any of them.
            DataError: an image or a panoptic PNG is unreadable or contradicts the annotations, and there is no `skip`;
                the model has fewer classes than the data set, or no image is left.
        """
        self.dataset.check_num_classes(backend.num_classes)
        is_thing = self.dataset.categories.is_thing_of(backend.num_classes)  # what has no name is always wrong
        asked = Asked(self.tasks, is_thing, self.thresholds)
        names = self.dataset.parts if len(self.dataset.parts) > 1 else {}
        sums = {name: _Sums() for name in (None, *names)}  # None: of all images
        batches = [] if (stopped := stop()) else self._batches()
        coming = [[self._geometry(index) for index in filled(batch, self.batch_size)] for batch in batches]
        with (
            compiling_ahead(backend, coming, asked),
            ThreadPoolExecutor(self.workers) as pool,
        ):
            loading = [pool.submit(self._load, index) for index in batches[0]] if batches else []
            scoring: list[Future[_Sums]] = []
            for position, indices in enumerate(batches):
                if stopped := stop():
                    break
                loaded = dict(_usable(zip(indices, loading, strict=True), skip))
                if position + 1 < len(batches):
                    loading = [pool.submit(self._load, index) for index in batches[position + 1]]
                if not loaded:
                    continue
                images, geometries = zip(*loaded.values(), strict=True)
                results = pending_results(
                    backend,
                    np.stack(filled(images, self.batch_size)),
                    filled(geometries, self.batch_size),
                    asked,
                )
                self._add(scoring, sums, progress, skip, see)  # of the batch before: they ran beside the prediction
                scoring = [
                    pool.submit(self._score, index, geometry.original, result, is_thing, see is not None)
                    for index, geometry, result in zip(loaded, geometries, results, strict=False)
                ]
            self._add(scoring, sums, progress, skip, see)
        of_processes = self.gather(None if stopped else sums)
        if None in of_processes:
            raise Stopped
        whole, *parts = (_Sums.of(found[name] for found in of_processes) for name in sums)
        if not whole.images:
            raise DataError("none of the images can be scored", where=self.dataset.where)
        metrics = partial(self._metrics, is_thing=is_thing)
        scored = {name: metrics(part) for name, part in zip(names, parts, strict=True) if part.images}
        return replace(metrics(whole), parts=scored)

    def _batches(self) -> list[list[int]]:
        groups: dict[Size, list[int]] = {}
        for index in range(self.share[0], len(self.dataset), self.share[1]):
            groups.setdefault(self._geometry(index).padded, []).append(index)
        for group in groups.values():
            group.sort(key=lambda index: self._geometry(index).original)  # so that a batch is of similar sizes
        size = self.batch_size
        return [group[start : start + size] for group in groups.values() for start in range(0, len(group), size)]

    def _geometry(self, index: int) -> Geometry:
        record = self.dataset.records[index]
        return self.policy((record.height, record.width))

    def _load(self, index: int) -> tuple[UInt8[np.ndarray, "h w 3"], Geometry]:
        with naming(self.dataset.records[index]):
            image = self.dataset.read_image(index)
        geometry = self.policy(image.shape[:2])
        return resize_and_pad(image, geometry), geometry

    def _score(self, index: int, size: Size, pending: Pending, is_thing: Bool[np.ndarray, " k"], seen: bool) -> "_Sums":
        record, num_classes = self.dataset.records[index], len(is_thing)
        with naming(record):
            truth = GroundTruth.from_segments(self.dataset.read_segments(index), record.segments)
        result = pending()
        image, sums = _Image(index, size), _Sums()
        if result.semantic is not None:
            classes = truth.class_map()
            sums.confusion = confusion_matrix(result.semantic, classes, classes >= 0, num_classes)
        if result.instance is not None:
            image = image._replace(found=result.instance, true=true_instances(truth, is_thing))
        if result.panoptic is not None:
            sums.counts = count_segments(result.panoptic, truth, num_classes)
        if seen:
            image = image._replace(quality=self._quality(result, truth, sums, is_thing), result=result)
        sums.images = [image]
        return sums

    def _quality(self, result: Result, truth: GroundTruth, sums: "_Sums", is_thing: Bool[np.ndarray, " k"]) -> float:
        """See `See`."""
        if sums.counts is not None:
            return sums.counts.quality
        if sums.confusion is not None:
            return semantic_scores(sums.confusion).overall["mIoU"]
        return quality_of_things(result.instance or (), truth, is_thing, self.thresholds.object_mask_threshold)

    def _add(
        self,
        scoring: "list[Future[_Sums]]",
        sums: "dict[str | None, _Sums]",
        progress: Progress | None,
        skip: Skip | None,
        see: See | None,
    ) -> None:
        for _, score in _usable(enumerate(scoring), skip):
            (image,) = score.images
            if see is not None:
                see(image.number, image.quality, image.result)
            score.images = [image._replace(result=Result())]
            for name, total in sums.items():
                if name is None or score.images[0].number in self.dataset.parts[name]:
                    total.add(score)
            if progress is not None:
                progress(len(sums[None].images), len(self.dataset))

    def _metrics(self, sums: "_Sums", is_thing: Bool[np.ndarray, " k"]) -> Metrics:
        known = self.dataset.categories.names
        extra = tuple(f"(output {index} of the model)" for index in range(len(known), len(is_thing)))
        scores: dict[Task, Scores] = {}
        if sums.confusion is not None:
            scores["semantic"] = semantic_scores(sums.confusion)
        if sums.counts is not None:
            scores["panoptic"] = panoptic_scores(sums.counts, is_thing)
        if "instance" in self.tasks:
            images = sorted(sums.images, key=lambda image: image.number)  # ties in AP must not depend on the batches
            found, true, sizes = zip(*((image.found, image.true, image.size) for image in images), strict=True)
            scores["instance"] = mask_average_precision(found, true, sizes, is_thing)
        return Metrics(
            known + extra,
            len(sums.images),
            self.policy_name,
            scores,
            confusion=sums.confusion,
            counts=sums.counts,
        )


def _usable(futures: Iterable[tuple[int, Future[T]]], skip: Skip | None) -> Iterator[tuple[int, T]]:
    """What came out, by number, but for what `skip` takes."""
    for number, future in futures:
        try:
            yield number, future.result()
        except DataError as error:
            if skip is None:
                raise
            skip(error)


class _Image(NamedTuple):
    """What AP needs of all images at once; no instances where that task does not run. How good a result is, and the
    result, are there where somebody sees it, until then."""

    number: int
    size: Size
    found: tuple[Instance, ...] = ()
    true: tuple[TrueInstance, ...] = ()
    quality: float = math.nan
    result: Result = Result()


@dataclass
class _Sums:
    """What images contribute to the scores; None for a task that does not run."""

    images: list[_Image] = field(default_factory=list)
    confusion: Int64[np.ndarray, "k k"] | None = None
    counts: PanopticCounts | None = None

    def add(self, other: "_Sums") -> None:
        if other.confusion is not None:
            self.confusion = other.confusion if self.confusion is None else self.confusion + other.confusion
        if other.counts is not None:
            self.counts = other.counts if self.counts is None else self.counts + other.counts
        self.images += other.images

    @classmethod
    def of(cls, several: "Iterable[_Sums]") -> "_Sums":
        total = cls()
        for sums in several:
            total.add(sums)
        return total
