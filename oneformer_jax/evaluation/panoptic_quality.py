"""Panoptic quality (Kirillov et al. 2019), with the rules of COCO's panopticapi for void and crowd regions."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from oneformer_jax.evaluation.ground_truth import GroundTruth
from oneformer_jax.postprocess.panoptic import PanopticResult


@dataclass(frozen=True)
class PanopticCounts:
    """Matched, false positive and false negative segments per class, and the sum of IoU over the matches."""

    true_positives: Int64[np.ndarray, " k"]
    false_positives: Int64[np.ndarray, " k"]
    false_negatives: Int64[np.ndarray, " k"]
    iou: Float[np.ndarray, " k"]

    def __add__(self, other: "PanopticCounts") -> "PanopticCounts":
        return PanopticCounts(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
            self.iou + other.iou,
        )


@dataclass(frozen=True)
class PanopticAverage:
    """Panoptic, segmentation and recognition quality: fractions, averaged over the classes that occur; NaN if none."""

    pq: float
    sq: float
    rq: float


@dataclass(frozen=True)
class PanopticScores:
    """Averages over all, thing and stuff classes, and the values per class (NaN where a class does not occur)."""

    all: PanopticAverage
    things: PanopticAverage
    stuff: PanopticAverage
    pq: Float[np.ndarray, " k"]
    sq: Float[np.ndarray, " k"]
    rq: Float[np.ndarray, " k"]


def count_segments(prediction: PanopticResult, truth: GroundTruth, num_classes: int) -> PanopticCounts:
    """Match the predicted segments of one image and the true ones, each pixel of which has one (`GroundTruth.index`).

    A pair of one class matches if its IoU exceeds 0.5, where the predicted segment's void pixels do not count in the
    union. Crowd regions never match and are never missed, nor is a segment of which no pixel is seen. An unmatched
    prediction is no false positive if more than half of it lies on void or on the crowd region of its class (the last
    one listed, if there are several).
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
    missed = ~matches.any(axis=1) & ~truth.iscrowd & (overlap[1:].sum(axis=1) > 0)
    wrong = ~matches.any(axis=0) & (forgiven <= 0.5 * area)
    return PanopticCounts(
        true_positives=per_class(truth.categories[true_row]),
        false_positives=per_class(categories[wrong]),
        false_negatives=per_class(truth.categories[missed]),
        iou=np.bincount(
            truth.categories[true_row], weights=iou[true_row, predicted_column], minlength=num_classes
        ).astype(np.float64),
    )


def panoptic_scores(counts: PanopticCounts, is_thing: Bool[np.ndarray, " k"]) -> PanopticScores:
    """PQ = sum of IoU / (TP + FP / 2 + FN / 2), SQ = sum of IoU / TP, RQ = TP / (TP + FP / 2 + FN / 2) per class."""
    matched = counts.true_positives
    weight = matched + 0.5 * counts.false_positives + 0.5 * counts.false_negatives
    present = weight > 0
    pq, sq, rq = (np.full(len(weight), np.nan) for _ in range(3))
    pq[present] = counts.iou[present] / weight[present]
    sq[present] = counts.iou[present] / np.maximum(matched[present], 1)  # 0 for a class without a match
    rq[present] = matched[present] / weight[present]

    def average(chosen: Bool[np.ndarray, " k"]) -> PanopticAverage:
        chosen = chosen & present
        if not chosen.any():
            return PanopticAverage(float("nan"), float("nan"), float("nan"))
        return PanopticAverage(float(pq[chosen].mean()), float(sq[chosen].mean()), float(rq[chosen].mean()))

    return PanopticScores(average(np.ones_like(is_thing)), average(is_thing), average(~is_thing), pq, sq, rq)
