"""Scores any backend on a data set: each task with its own prediction, every image at its original size."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Int64, UInt8

from oneformer_jax.data.datasets.dataset import Dataset, naming
from oneformer_jax.data.datasets.files import DatasetFiles
from oneformer_jax.data.geometry import Geometry, Policy, Size, resize_and_pad
from oneformer_jax.evaluation.metrics import (
    GroundTruth,
    InstanceScores,
    PanopticCounts,
    PanopticScores,
    SemanticScores,
    TrueInstance,
    confusion_matrix,
    count_segments,
    mask_average_precision,
    panoptic_scores,
    semantic_scores,
    true_instances,
)
from oneformer_jax.postprocess.results import Instance, Thresholds, finished_result
from oneformer_jax.tasks import TASKS, Task

BatchLogits = tuple[Float[np.ndarray, "b q k1"], Float[np.ndarray, "b q h4 w4"]]
Progress = Callable[[int, int], None]
"""Called with the number of finished images and of all images."""


@runtime_checkable
class Backend(Protocol):
    """Whatever turns images into logits: the JAX model, ONNX Runtime, TensorRT."""

    def predict(
        self, images: UInt8[np.ndarray, "b h w 3"], sizes: Int[np.ndarray, "b 2"], tasks: Sequence[Task]
    ) -> dict[Task, BatchLogits]:
        """Class logits (B, Q, K + 1) and mask logits (B, Q, H/4, W/4) for each task; features of the images are
        computed once. `sizes` are the resized (height, width) inside the padded images."""
        ...


@dataclass(frozen=True)
class Metrics:
    """Scores of the tasks that ran; None for the others. `geometry` names the policy that sized the images.

    The scores are taken over all images; `parts` are those of each data set where there are several.
    """

    class_names: tuple[str, ...]
    num_images: int
    geometry: str
    semantic: SemanticScores | None = None
    instance: InstanceScores | None = None
    panoptic: PanopticScores | None = None
    parts: Mapping[str, "Metrics"] = field(default_factory=dict)


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

    def run(self, backend: Backend, progress: Progress | None = None) -> Metrics:
        """Predict and score the whole data set.

        Raises:
            DataError: an image or a panoptic PNG is unreadable or contradicts the annotations, or the model has fewer
                classes than the data set.
        """
        total = _Total(self)
        with ThreadPoolExecutor(self.workers) as pool:
            batches = self._batches()
            loading = [pool.submit(self._load, index) for index in batches[0]] if batches else []
            scoring: list[Future[_ImageScore]] = []
            for position, indices in enumerate(batches):
                inputs = [future.result() for future in loading]
                if position + 1 < len(batches):
                    loading = [pool.submit(self._load, index) for index in batches[position + 1]]
                logits = backend.predict(*self._stack(inputs), self.tasks)
                total.add(scoring, progress)  # of the batch before: they ran beside the prediction
                scoring = [
                    pool.submit(self._score, index, inputs[row].geometry, row, logits)
                    for row, index in enumerate(indices)
                ]
            total.add(scoring, progress)
        return total.of_all(self.gather).metrics()

    def _batches(self) -> list[list[int]]:
        groups: dict[Size, list[int]] = {}
        for index in range(self.share[0], len(self.dataset), self.share[1]):
            record = self.dataset.records[index]
            groups.setdefault(self.policy((record.height, record.width)).padded, []).append(index)
        size = self.batch_size
        return [group[start : start + size] for group in groups.values() for start in range(0, len(group), size)]

    def _load(self, index: int) -> "_Input":
        with naming(self.dataset.records[index]):
            image = self.dataset.read_image(index)
        geometry = self.policy(image.shape[:2])
        return _Input(resize_and_pad(image, geometry), geometry)

    def _stack(self, inputs: list["_Input"]) -> tuple[UInt8[np.ndarray, "b h w 3"], Int[np.ndarray, "b 2"]]:
        full = inputs + inputs[-1:] * (self.batch_size - len(inputs))
        return np.stack([item.image for item in full]), np.array([item.geometry.resized for item in full], np.int32)

    def _score(self, index: int, geometry: Geometry, row: int, logits: dict[Task, BatchLogits]) -> "_ImageScore":
        record = self.dataset.records[index]
        with naming(record):
            truth = GroundTruth.from_segments(self.dataset.read_segments(index), record.segments)
        num_classes = next(iter(logits.values()))[0].shape[-1] - 1
        self.dataset.check_num_classes(num_classes)
        is_thing = self.dataset.categories.is_thing_of(num_classes)  # what has no name is always wrong
        of_image = {task: (classes[row], masks[row]) for task, (classes, masks) in logits.items()}
        result = finished_result(of_image, geometry, is_thing, self.thresholds)
        score = _ImageScore(index, geometry.original, num_classes)
        if result.semantic is not None:
            classes = truth.class_map()
            score = score._replace(confusion=confusion_matrix(result.semantic, classes, classes >= 0, num_classes))
        if result.instance is not None:
            score = score._replace(found=result.instance, true=true_instances(truth, is_thing))
        if result.panoptic is not None:
            score = score._replace(counts=count_segments(result.panoptic, truth, num_classes))
        return score


class _Input(NamedTuple):
    image: UInt8[np.ndarray, "h w 3"]
    geometry: Geometry


class _ImageScore(NamedTuple):
    """What one image contributes; None for a task that does not run."""

    image: int
    size: Size
    num_classes: int
    confusion: Int64[np.ndarray, "k k"] | None = None
    counts: PanopticCounts | None = None
    found: tuple[Instance, ...] | None = None
    true: tuple[TrueInstance, ...] | None = None


@dataclass
class _Sums:
    """Running sums over images, and the instances, which AP needs all at once."""

    scores: list[_ImageScore] = field(default_factory=list)  # without confusion and counts, which are summed
    confusion: Int64[np.ndarray, "k k"] | None = None
    counts: PanopticCounts | None = None

    def add(self, score: _ImageScore) -> None:
        self.merge(_Sums([score._replace(confusion=None, counts=None)], score.confusion, score.counts))

    def merge(self, other: "_Sums") -> None:
        if other.confusion is not None:
            self.confusion = other.confusion if self.confusion is None else self.confusion + other.confusion
        if other.counts is not None:
            self.counts = other.counts if self.counts is None else self.counts + other.counts
        self.scores += other.scores

    def metrics(self, evaluator: Evaluator) -> Metrics:
        num_classes = self.scores[0].num_classes
        is_thing = evaluator.dataset.categories.is_thing_of(num_classes)
        known = evaluator.dataset.categories.names
        extra = tuple(f"(output {index} of the model)" for index in range(len(known), num_classes))
        instance = None
        if "instance" in evaluator.tasks:
            scores = sorted(self.scores, key=lambda score: score.image)  # ties in AP must not depend on the batches
            found, true, sizes = zip(*((s.found, s.true, s.size) for s in scores), strict=True)
            instance = mask_average_precision(found, true, sizes, is_thing)
        return Metrics(
            class_names=known + extra,
            num_images=len(self.scores),
            geometry=evaluator.policy_name,
            semantic=None if self.confusion is None else semantic_scores(self.confusion),
            instance=instance,
            panoptic=None if self.counts is None else panoptic_scores(self.counts, is_thing),
        )


class _Total:
    """The sums over all images and, where there are several data sets, over each of them."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.whole = _Sums()
        parts = evaluator.dataset.parts
        self.parts = {name: _Sums() for name in parts} if len(parts) > 1 else {}

    def add(self, scoring: list["Future[_ImageScore]"], progress: Progress | None) -> None:
        dataset = self.evaluator.dataset
        for future in scoring:
            score = future.result()
            self.whole.add(score)
            for name, sums in self.parts.items():
                if score.image in dataset.parts[name]:
                    sums.add(score)
            if progress is not None:
                progress(len(self.whole.scores), len(dataset))

    def of_all(self, gather: Callable[[Any], list[Any]]) -> "_Total":
        """The sums over the images of all processes."""
        total = _Total(self.evaluator)
        for whole, parts in gather((self.whole, self.parts)):
            total.whole.merge(whole)
            for name, sums in total.parts.items():
                sums.merge(parts[name])
        return total

    def metrics(self) -> Metrics:
        parts = {name: sums.metrics(self.evaluator) for name, sums in self.parts.items()}
        return replace(self.whole.metrics(self.evaluator), parts=parts)
