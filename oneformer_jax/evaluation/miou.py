"""Mean intersection over union and pixel accuracy from one confusion matrix of pixel counts."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64, Integer


@dataclass(frozen=True)
class SemanticScores:
    """Fractions. `iou` per class is NaN where a class was neither annotated nor predicted; means skip these."""

    mean_iou: float
    pixel_accuracy: float
    iou: Float[np.ndarray, " k"]


def confusion_matrix(
    prediction: Integer[np.ndarray, "h w"],
    truth: Integer[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
    num_classes: int,
) -> Int64[np.ndarray, "k k"]:
    """Pixel counts [true class, predicted class] over the `valid` pixels; the others are void and count nowhere."""
    joint = truth[valid].astype(np.int64) * num_classes + prediction[valid]
    return np.bincount(joint, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64, copy=False)


def semantic_scores(confusion: Int64[np.ndarray, "k k"]) -> SemanticScores:
    """IoU of a class = intersection / union over all images together; accuracy = correct pixels / valid pixels."""
    correct = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - correct
    present = union > 0
    iou = np.full(len(union), np.nan)
    iou[present] = correct[present] / union[present]
    total = int(confusion.sum())
    return SemanticScores(
        mean_iou=float(iou[present].mean()) if present.any() else float("nan"),
        pixel_accuracy=float(correct.sum() / total) if total else float("nan"),
        iou=iou,
    )
