"""Panoptic segmentation: every pixel goes to one query, and queries become segments.

Axes: q queries, k1 classes and no-object, k segments, h w mask logits at stride 4, height width the original image.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int32

from oneformer_jax.data.geometry import Geometry
from oneformer_jax.postprocess.probabilities import sigmoid, softmax
from oneformer_jax.postprocess.resize import tiles
from oneformer_jax.postprocess.thresholds import Thresholds


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
