"""Logits of one image to its finished results.

semantic: every query votes for classes with its class probabilities, weighted by its mask. instance: the best (query,
class) pairs, each with the mask of its query. panoptic: every pixel goes to one query, and queries become segments.

Axes: q queries, k1 classes and no-object, k classes, h w mask logits at stride 4, height width the original image, r c
one tile of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int32, Shaped
from pycocotools import mask as coco_mask

from oneformer_jax.data.geometry import Geometry
from oneformer_jax.postprocess.tiles import sigmoid, softmax, tiles
from oneformer_jax.tasks import Task


@dataclass(frozen=True)
class Thresholds:
    """What a spec sets under `model.test`. Defaults are TAO's; the original uses 0.8, 0.8 and 150 on COCO.

    `object_mask_threshold`: a query whose best class probability does not exceed it makes no panoptic segment.
    `overlap_threshold`: a panoptic segment that keeps a smaller fraction of its own mask is dropped.
    `test_topk_per_image`: how many (query, class) pairs of an image compete as instances.
    """

    object_mask_threshold: float = 0.4
    overlap_threshold: float = 0.5
    test_topk_per_image: int = 100

    def __post_init__(self) -> None:
        """Raises ValueError: no probability, no fraction, no whole number of pairs."""
        for name in ("object_mask_threshold", "overlap_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 to 1")
        if type(self.test_topk_per_image) is not int or self.test_topk_per_image < 1:
            raise ValueError(f"test_topk_per_image is {self.test_topk_per_image}, expected a whole number above 0")


def semantic_map(
    class_logits: Float[np.ndarray, "q k1"], mask_logits: Float[np.ndarray, "q h w"], geometry: Geometry
) -> Shaped[np.ndarray, "height width"]:
    """Class index of every pixel of the original image, in the smallest unsigned integer type that holds K classes.

    The rule is that of the original (mask logits resized to full size, then sigmoid and sum over queries); Hugging
    Face sums at stride 4 and resizes the sums instead.
    """
    classes = np.empty(geometry.original, np.min_scalar_type(class_logits.shape[1] - 2))
    for rows, columns, scores in semantic_score_tiles(class_logits, mask_logits, geometry):
        classes[rows, columns] = scores.argmax(axis=-1)
    return classes


def semantic_score_tiles(
    class_logits: Float[np.ndarray, "q k1"], mask_logits: Float[np.ndarray, "q h w"], geometry: Geometry
) -> Iterator[tuple[slice, slice, Float[np.ndarray, "r c k"]]]:
    """Rows, columns and sums whose argmax is `semantic_map`: not normalised, as in the original."""
    probabilities = softmax(class_logits.astype(np.float32, copy=False))[:, :-1]
    for rows, columns, logits in tiles(mask_logits, geometry):
        masks = sigmoid(logits)
        scores = masks.reshape(len(masks), -1).T @ probabilities
        yield rows, columns, scores.reshape(*logits.shape[1:], -1)


QUERIES_AT_ONCE = 16  # bounds the memory of binary masks at full size

RunLengths = dict[str, Any]
"""COCO's compressed run-length encoding: `{"size": [height, width], "counts": bytes}`."""


@dataclass(frozen=True)
class Instance:
    """`category` is a class index, `mask` covers the original image, `box` is (x, y, width, height) in pixels."""

    category: int
    score: float
    mask: RunLengths
    box: tuple[float, float, float, float]


def instance_segmentation(
    class_logits: Float[np.ndarray, "q k1"],
    mask_logits: Float[np.ndarray, "q h w"],
    geometry: Geometry,
    is_thing: Bool[np.ndarray, " k"],
    thresholds: Thresholds,
) -> tuple[Instance, ...]:
    """The rule of the original: of all (query, class) pairs the `test_topk_per_image` most probable, of these the
    things; the score is the class probability times the mean mask probability inside the mask. Highest score first.
    Empty masks (score 0) are left out.
    """
    probabilities = softmax(class_logits.astype(np.float32, copy=False))[:, :-1]
    num_classes = probabilities.shape[1]
    best = np.argsort(-probabilities, axis=None, kind="stable")[: thresholds.test_topk_per_image]
    queries, labels = best // num_classes, best % num_classes
    queries, labels = queries[is_thing[labels]], labels[is_thing[labels]]

    found = []
    for start in range(0, len(unique := np.unique(queries)), QUERIES_AT_ONCE):
        chunk = unique[start : start + QUERIES_AT_ONCE]
        masks, qualities = _binary_masks(mask_logits[chunk], geometry)
        for query, mask, quality in zip(chunk, masks, qualities, strict=True):
            if quality == 0:
                continue
            x, y, width, height = coco_mask.toBbox(mask).tolist()
            for label in labels[queries == query]:
                score = float(probabilities[query, label] * quality)
                found.append(Instance(int(label), score, mask, (x, y, width, height)))
    return tuple(sorted(found, key=lambda instance: -instance.score))


def _binary_masks(
    mask_logits: Float[np.ndarray, "q h w"], geometry: Geometry
) -> tuple[list[RunLengths], Float[np.ndarray, " q"]]:
    """Masks at the original size and their mean probability inside (0 where a mask is empty)."""
    count = len(mask_logits)
    height, width = geometry.original
    # Run lengths go down the columns of the image: the transposed problem writes them in their own order.
    transposed = Geometry(geometry.original[::-1], geometry.resized[::-1], geometry.padded[::-1])
    inside = np.empty((count, width, height), np.uint8)
    area, mass = np.zeros(count), np.zeros(count)
    for columns, rows, logits in tiles(mask_logits.transpose(0, 2, 1), transposed):
        positive = logits > 0
        inside[:, columns, rows] = positive
        touched = np.flatnonzero(positive.any(axis=(1, 2)))
        positive = positive[touched]
        area[touched] += np.count_nonzero(positive, axis=(1, 2))
        mass[touched] += (sigmoid(logits[touched]) * positive).sum(axis=(1, 2), dtype=np.float64)
    return coco_mask.encode(inside.T), mass / (area + 1e-6)


@dataclass(frozen=True)
class PanopticSegment:
    """`id` is its value in the id map, `category` the class index, `score` the class probability of its query (the
    highest where queries of one stuff class were merged), `area` its number of pixels."""

    id: int
    category: int
    isthing: bool
    score: float
    area: int


@dataclass(frozen=True)
class PanopticResult:
    """`ids` holds segment ids 1, 2, ... at the original size; 0 marks pixels of no segment."""

    ids: Int32[np.ndarray, "height width"]
    segments: tuple[PanopticSegment, ...]


def panoptic_segmentation(
    class_logits: Float[np.ndarray, "q k1"],
    mask_logits: Float[np.ndarray, "q h w"],
    geometry: Geometry,
    is_thing: Bool[np.ndarray, " k"],
    thresholds: Thresholds,
) -> PanopticResult:
    """The rule of the original: queries whose best label is "no object" or whose probability does not exceed
    `object_mask_threshold` are dropped (TAO takes the best label among the real classes only); each pixel goes to the
    query with the highest class probability times mask probability, if its own mask holds there; segments that keep
    less than `overlap_threshold` of their mask are dropped; stuff segments of one class are merged.
    """
    num_classes = class_logits.shape[1] - 1
    probabilities = softmax(class_logits.astype(np.float32, copy=False))
    labels, scores = probabilities.argmax(axis=1), probabilities.max(axis=1)
    kept = np.flatnonzero((labels != num_classes) & (scores > thresholds.object_mask_threshold))
    if kept.size == 0:
        return PanopticResult(np.zeros(geometry.original, np.int32), ())
    labels, scores = labels[kept], scores[kept]

    owner = np.empty(geometry.original, np.int32)  # index into `kept`; len(kept) where no mask holds
    won_area = np.zeros(len(kept), np.int64)  # pixels that the query wins, inside its mask or not
    mask_area = np.zeros(len(kept), np.int64)
    for rows, columns, logits in tiles(mask_logits[kept], geometry):
        winner = (sigmoid(logits) * scores[:, None, None]).argmax(axis=0)
        holds = np.take_along_axis(logits, winner[None], axis=0)[0] >= 0
        owner[rows, columns] = np.where(holds, winner, len(kept))
        won_area += np.bincount(winner.ravel(), minlength=len(kept))
        mask_area += np.count_nonzero(logits >= 0, axis=(1, 2))
    visible_area = np.bincount(owner.ravel(), minlength=len(kept) + 1)[:-1]

    segment_of = np.zeros(len(kept) + 1, np.int32)
    stuff_segment: dict[int, int] = {}
    members: list[list[int]] = []  # the queries of each segment, in order of their ids
    for query in np.flatnonzero(visible_area).tolist():
        if won_area[query] / mask_area[query] < thresholds.overlap_threshold:
            continue
        label = int(labels[query])
        if label in stuff_segment:
            segment_of[query] = stuff_segment[label]
            members[stuff_segment[label] - 1].append(query)
            continue
        members.append([query])
        segment_of[query] = len(members)
        if not is_thing[label]:
            stuff_segment[label] = len(members)
    segments = tuple(
        PanopticSegment(
            id=position + 1,
            category=int(labels[queries[0]]),
            isthing=bool(is_thing[labels[queries[0]]]),
            score=float(scores[queries].max()),
            area=int(visible_area[queries].sum()),
        )
        for position, queries in enumerate(members)
    )
    return PanopticResult(segment_of[owner], segments)


ImageLogits = tuple[Float[np.ndarray, "q k1"], Float[np.ndarray, "q h w"]]
"""Class and mask logits of one image."""


@dataclass(frozen=True)
class Result:
    """What one image shows, at its own size (H, W); None for the tasks that were not asked for.

    `semantic`: class indices (H, W); `instance`: instances, best first; `panoptic`: segment ids (H, W) with segments.
    """

    semantic: Shaped[np.ndarray, "height width"] | None = None
    instance: tuple[Instance, ...] | None = None
    panoptic: PanopticResult | None = None


def finished_result(
    logits: Mapping[Task, ImageLogits], geometry: Geometry, is_thing: Bool[np.ndarray, " k"], thresholds: Thresholds
) -> Result:
    """The results of the tasks that there are logits for."""
    results: dict[str, Any] = {}
    for task, of_task in logits.items():
        if task == "semantic":
            results[task] = semantic_map(*of_task, geometry)
        else:
            segment = instance_segmentation if task == "instance" else panoptic_segmentation
            results[task] = segment(*of_task, geometry, is_thing, thresholds)
    return Result(**results)
