"""Mask average precision by COCO's own code (pycocotools), against the whole masks of the annotated things."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from oneformer_jax.evaluation.ground_truth import GroundTruth
from oneformer_jax.postprocess.instance import Instance, RunLengths

MAX_DETECTIONS = 100  # an image, as in COCO


@dataclass(frozen=True)
class TrueInstance:
    """An annotated thing or crowd region; `mask` covers the original image."""

    category: int
    iscrowd: bool
    mask: RunLengths


@dataclass(frozen=True)
class InstanceScores:
    """Fractions: AP is the mean over IoU 0.50, 0.55, ..., 0.95. `per_class` is its value for each class, NaN for stuff
    and for things that are not annotated anywhere; the means skip these."""

    ap: float
    ap50: float
    ap75: float
    per_class: Float[np.ndarray, " k"]


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
) -> InstanceScores:
    """AP over all images: one sequence of predictions, one of annotations and one (height, width) per image."""
    images = [{"id": i, "height": height, "width": width} for i, (height, width) in enumerate(sizes)]
    categories = [{"id": int(index)} for index in np.flatnonzero(is_thing)]
    undefined = InstanceScores(*(float("nan"),) * 3, np.full(len(is_thing), np.nan))
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
    return InstanceScores(float(by_threshold.mean()), float(at50), float(at75), per_class)


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
