"""The metrics of the three tasks against the annotation.

semantic: mean intersection over union and pixel accuracy from one confusion matrix of pixel counts. instance: mask
average precision by COCO's own code (pycocotools), against the whole masks of the annotated things. panoptic: panoptic
quality (Kirillov et al. 2019), with the rules of COCO's panopticapi for void and crowd regions.
"""

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int16, Int32, Int64, Integer
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from oneformer_jax.data.datasets.dataset import Segment, front
from oneformer_jax.postprocess.results import Instance, PanopticResult, PanopticSegment, RunLengths

MAX_DETECTIONS = 100  # an image, as in COCO
SIZES = {"small": 0, "medium": 32**2, "large": 96**2}
"""The pixels from which on a segment is so large, as in COCO."""


@dataclass(frozen=True)
class Scores:
    """Fractions by their usual names: `overall` over all classes, and of each class (K,).

    NaN where a value is not defined, as of a class that does not occur; means over classes skip these.
    """

    overall: dict[str, float]
    per_class: dict[str, Float[np.ndarray, " k"]]


@dataclass(frozen=True)
class GroundTruth:
    """`planes` hold, at the original size, the row of each pixel's segment in the tables; -1 is void. Masks that
    overlap lie in several planes, each whole in one.

    `categories` are class indices, `iscrowd` marks regions of uncounted things.
    """

    planes: Int16[np.ndarray, "r h w"]
    categories: Int[np.ndarray, " t"]
    iscrowd: Bool[np.ndarray, " t"]

    @classmethod
    def from_segments(cls, planes: Int16[np.ndarray, "r h w"], segments: Sequence[Segment]) -> "GroundTruth":
        """From the planes of a data set (see `Dataset.read_segments`) and the segments of its record."""
        categories = np.array([segment.category for segment in segments], np.int64)
        return cls(planes, categories, np.array([segment.iscrowd for segment in segments], bool))

    @cached_property
    def index(self) -> Int16[np.ndarray, "h w"]:
        """One segment a pixel: where masks overlap, the one in front. What mIoU and PQ are measured against."""
        return front(self.planes)

    def as_panoptic(self) -> PanopticResult:
        """The truth as if it were predicted: a segment of each row, numbered from 1."""
        ids = self.index.astype(np.int32) + 1
        areas = np.bincount(ids.ravel(), minlength=len(self.categories) + 1)[1:].tolist()
        rows = enumerate(zip(self.categories.tolist(), areas, strict=True), start=1)
        segments = (PanopticSegment(number, category, False, 1.0, area) for number, (category, area) in rows)
        return PanopticResult(ids, tuple(segments))

    def class_map(self) -> Int32[np.ndarray, "h w"]:
        """Class index of every pixel, -1 where void. Crowd regions have a class like any other (as in the original's
        semantic ground truth of COCO; TAO ignores them)."""
        return np.append(self.categories, -1).astype(np.int32)[self.index]


def confusion_matrix(
    prediction: Integer[np.ndarray, "h w"],
    truth: Integer[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
    num_classes: int,
) -> Int64[np.ndarray, "k k"]:
    """Pixel counts [true class, predicted class] over the `valid` pixels; the others are void and count nowhere."""
    joint = truth[valid].astype(np.int64) * num_classes + prediction[valid]
    return np.bincount(joint, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64, copy=False)


def semantic_scores(confusion: Int64[np.ndarray, "k k"]) -> Scores:
    """mIoU, pixel_accuracy and IoU of each class; a class occurs if it was annotated or predicted.

    IoU of a class = intersection / union over all images together; accuracy = correct pixels / valid pixels.
    """
    correct = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - correct
    present = union > 0
    iou = np.full(len(union), np.nan)
    iou[present] = correct[present] / union[present]
    total = int(confusion.sum())
    accuracy = float(correct.sum() / total) if total else math.nan
    return Scores({"mIoU": _mean(iou, present), "pixel_accuracy": accuracy}, {"IoU": iou})


def _mean(values: Float[np.ndarray, " k"], chosen: Bool[np.ndarray, " k"]) -> float:
    return float(values[chosen].mean()) if chosen.any() else math.nan


@dataclass(frozen=True)
class TrueInstance:
    """An annotated thing or crowd region; `mask` covers the original image."""

    category: int
    iscrowd: bool
    mask: RunLengths


def true_instances(truth: GroundTruth, is_thing: Bool[np.ndarray, " k"]) -> tuple[TrueInstance, ...]:
    """The things of one image, crowd regions included."""
    columns_first = np.ascontiguousarray(truth.planes.transpose(0, 2, 1))  # the order in which run lengths go
    return tuple(
        TrueInstance(
            category=int(truth.categories[row]),
            iscrowd=bool(truth.iscrowd[row]),
            mask=coco_mask.encode((columns_first == row).any(axis=0).view(np.uint8).T),
        )
        for row in np.flatnonzero(is_thing[truth.categories])
    )


def mask_average_precision(
    predictions: Sequence[Sequence[Instance]],
    truths: Sequence[Sequence[TrueInstance]],
    sizes: Sequence[tuple[int, int]],
    is_thing: Bool[np.ndarray, " k"],
) -> Scores:
    """AP, AP50 and AP75 over all images, and AP of each thing that is annotated anywhere.

    AP is the mean over IoU 0.50, 0.55, ..., 0.95. Gets one sequence of predictions, one of annotations and one (height,
    width) per image.
    """
    images = [{"id": i, "height": height, "width": width} for i, (height, width) in enumerate(sizes)]
    categories = [{"id": int(index)} for index in np.flatnonzero(is_thing)]
    undefined = Scores(dict.fromkeys(("AP", "AP50", "AP75"), math.nan), {"AP": np.full(len(is_thing), np.nan)})
    if not categories:
        return undefined
    found = [
        {**_annotation(i, instance.category, instance.mask), "score": instance.score, "iscrowd": 0}
        for i, instances in enumerate(predictions)
        for instance in instances
    ]
    real = [
        {**_annotation(i, instance.category, instance.mask), "iscrowd": int(instance.iscrowd)}
        for i, instances in enumerate(truths)
        for instance in instances
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress with print
        scoring = COCOeval(_coco(images, categories, real), _coco(images, categories, found), "segm")
        scoring.params.areaRng, scoring.params.areaRngLbl = [[0, 1e10]], ["all"]
        scoring.params.maxDets = [MAX_DETECTIONS]
        scoring.evaluate()
        scoring.accumulate()

    precision = scoring.eval["precision"][:, :, :, 0, 0]  # (IoU threshold, recall, category), -1 where undefined
    defined = (precision > -1).all(axis=(0, 1))
    if not defined.any():
        return undefined
    by_threshold = precision[:, :, defined].mean(axis=1)
    per_class = np.full(len(is_thing), np.nan)
    per_class[np.flatnonzero(is_thing)[defined]] = by_threshold.mean(axis=0)
    thresholds = scoring.params.iouThrs
    at50, at75 = (by_threshold[np.flatnonzero(np.isclose(thresholds, value))[0]].mean() for value in (0.5, 0.75))
    return Scores({"AP": float(by_threshold.mean()), "AP50": float(at50), "AP75": float(at75)}, {"AP": per_class})


def _annotation(image: int, category: int, mask: RunLengths) -> dict[str, Any]:
    area, box = float(coco_mask.area(mask)), coco_mask.toBbox(mask).tolist()
    return {"image_id": image, "category_id": category, "segmentation": mask, "area": area, "bbox": box}


def _coco(images: list[dict[str, Any]], categories: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> COCO:
    # Ids start at 1: COCOeval takes a match with annotation 0 for no match.
    numbered = [{"id": number, **annotation} for number, annotation in enumerate(annotations, start=1)]
    coco = COCO()
    coco.dataset = {"images": images, "categories": categories, "annotations": numbered}
    coco.createIndex()
    return coco


@dataclass(frozen=True)
class PanopticCounts:
    """Matched, false positive and false negative segments per class, and the sum of IoU over the matches. `by_size` are
    those matched, missed, and the sum of IoU of the true segments of each of `SIZES`."""

    true_positives: Int64[np.ndarray, " k"]
    false_positives: Int64[np.ndarray, " k"]
    false_negatives: Int64[np.ndarray, " k"]
    iou: Float[np.ndarray, " k"]
    by_size: Float64[np.ndarray, "3 3"] = field(default_factory=lambda: np.zeros((3, 3)))

    @property
    def quality(self) -> float:
        """PQ with all classes as one; NaN where there is nothing."""
        weight = self.true_positives.sum() + 0.5 * (self.false_positives.sum() + self.false_negatives.sum())
        return float(self.iou.sum() / weight) if weight else math.nan

    def __add__(self, other: "PanopticCounts") -> "PanopticCounts":
        return PanopticCounts(*map(np.add, vars(self).values(), vars(other).values()))


def count_segments(prediction: PanopticResult, truth: GroundTruth, num_classes: int) -> PanopticCounts:
    """Match the predicted segments of one image and the true ones, each pixel of which has one (`GroundTruth.index`).

    A pair of one class matches if its IoU exceeds 0.5, where the predicted segment's void pixels do not count in the
    union. Crowd regions never match and are never missed, nor is a segment that lies behind others as a whole; one that
    is listed without any pixel is missed. An unmatched prediction is no false positive if more than half of it lies on
    void or on the crowd region of its class (the last one listed, if there are several).
    """
    categories = np.array([segment.category for segment in prediction.segments], np.int64)
    columns = len(categories) + 1
    joint = (truth.index.astype(np.int64) + 1) * columns + prediction.ids
    overlap = np.bincount(joint.ravel(), minlength=(len(truth.categories) + 1) * columns).reshape(-1, columns)
    # Row 0 is void, column 0 is what the prediction leaves open.
    void, intersection, area = overlap[0, 1:], overlap[1:, 1:], overlap[:, 1:].sum(axis=0)

    union = overlap[1:].sum(axis=1)[:, None] + (area - void)[None] - intersection
    iou = intersection / np.maximum(union, 1)
    same_class = truth.categories[:, None] == categories[None]
    matches = (iou > 0.5) & same_class & ~truth.iscrowd[:, None]

    forgiven = void.copy()
    crowd_row = {int(truth.categories[row]): int(row) for row in np.flatnonzero(truth.iscrowd)}
    for column, category in enumerate(categories.tolist()):
        if category in crowd_row:
            forgiven[column] += intersection[crowd_row[category], column]

    def per_class(classes: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " k"]:
        return np.bincount(classes, minlength=num_classes).astype(np.int64, copy=False)

    true_row, predicted_column = np.nonzero(matches)
    missed = ~matches.any(axis=1) & ~truth.iscrowd & ~_hidden(truth, overlap[1:].sum(axis=1))
    wrong = ~matches.any(axis=0) & (forgiven <= 0.5 * area)
    shown = overlap[1:].sum(axis=1)
    size = np.digitize(shown, list(SIZES.values())) - 1
    by_size = np.zeros((3, 3))
    np.add.at(by_size, (size[true_row], 0), 1)
    np.add.at(by_size, (size[missed], 1), 1)
    np.add.at(by_size, (size[true_row], 2), iou[true_row, predicted_column])
    return PanopticCounts(
        true_positives=per_class(truth.categories[true_row]),
        false_positives=per_class(categories[wrong]),
        false_negatives=per_class(truth.categories[missed]),
        iou=np.bincount(
            truth.categories[true_row], weights=iou[true_row, predicted_column], minlength=num_classes
        ).astype(np.float64),
        by_size=by_size,
    )


def _hidden(truth: GroundTruth, shown: Int[np.ndarray, " t"]) -> Bool[np.ndarray, " t"]:
    """Whether a segment has pixels, but none of those that are `shown` in front."""
    rows = np.arange(len(shown))
    return (shown == 0) & np.isin(rows, truth.planes) if len(truth.planes) > 1 else np.zeros(len(shown), bool)


def panoptic_scores(counts: PanopticCounts, is_thing: Bool[np.ndarray, " k"]) -> Scores:
    """Panoptic, segmentation and recognition quality of each class; averaged over all, thing and stuff classes.

    PQ = sum of IoU / (TP + FP / 2 + FN / 2), SQ = sum of IoU / TP, RQ = TP / (TP + FP / 2 + FN / 2).
    """
    matched = counts.true_positives
    weight = matched + 0.5 * counts.false_positives + 0.5 * counts.false_negatives
    present = weight > 0
    pq, sq, rq = (np.full(len(weight), np.nan) for _ in range(3))
    pq[present] = counts.iou[present] / weight[present]
    sq[present] = counts.iou[present] / np.maximum(matched[present], 1)  # 0 for a class without a match
    rq[present] = matched[present] / weight[present]
    per_class = {"PQ": pq, "SQ": sq, "RQ": rq}
    groups = {"": present, "_things": present & is_thing, "_stuff": present & ~is_thing}
    overall = {
        name + suffix: _mean(values, chosen) for suffix, chosen in groups.items() for name, values in per_class.items()
    }
    return Scores(overall, per_class)
