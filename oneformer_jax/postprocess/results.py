"""Logits of one image to its finished results.

semantic: every query votes for classes with its class probabilities, weighted by its mask. instance: the best (query,
class) pairs, each with the mask of its query. panoptic: every pixel goes to one query, and queries become segments.

Axes: q queries, k1 classes and no-object, k classes, h w mask logits, height width the original image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, Integer, Shaped
from pycocotools import mask as coco_mask

from oneformer_jax.data.geometry import Geometry
from oneformer_jax.errors import OneFormerError
from oneformer_jax.postprocess.instance import RunLengths, binary_masks
from oneformer_jax.postprocess.panoptic import Owners, owners
from oneformer_jax.postprocess.semantic import class_map
from oneformer_jax.postprocess.tiles import Tiles, softmax
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
        if type(self.test_topk_per_image) is not int or self.test_topk_per_image < 0:
            raise ValueError(f"test_topk_per_image is {self.test_topk_per_image}, expected a whole number")

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in vars(self).items())


def semantic_map(
    class_logits: Float[np.ndarray, "q k1"], mask_logits: Float[np.ndarray, "q h w"], geometry: Geometry
) -> Shaped[np.ndarray, "height width"]:
    """Class index of every pixel of the original image, in the smallest unsigned integer type that holds K classes.

    The rule is that of the original (mask logits resized to full size, then sigmoid and sum over queries); Hugging
    Face sums at the size of the logits and resizes the sums instead. A tie goes to the first class.
    """
    return class_map(_probabilities(class_logits)[:, :-1], Tiles(mask_logits, geometry))


def _probabilities(class_logits: Float[np.ndarray, "q k1"]) -> Float32[np.ndarray, "q k1"]:
    return softmax(class_logits.astype(np.float32, copy=False))


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
    probabilities = _probabilities(class_logits)[:, :-1]
    num_classes = probabilities.shape[1]
    best = np.argsort(-probabilities, axis=None, kind="stable")[: thresholds.test_topk_per_image]
    queries, labels = best // num_classes, best % num_classes
    queries, labels = queries[is_thing[labels]], labels[is_thing[labels]]
    chosen = np.unique(queries)
    if chosen.size == 0:
        return ()
    masks, quality = binary_masks(mask_logits[chosen], geometry)
    return instances(queries, labels, probabilities[queries, labels], chosen, masks, quality)


def instances(
    queries: Integer[np.ndarray, " n"],
    labels: Integer[np.ndarray, " n"],
    probabilities: Float32[np.ndarray, " n"],
    chosen: Integer[np.ndarray, " m"],
    masks: Sequence[RunLengths],
    quality: Float64[np.ndarray, " m"],
) -> tuple[Instance, ...]:
    """The instances of pairs of a query and a thing, most probable first; `chosen` are the queries that have `masks`,
    with the mean mask probability inside each, 0 where it is empty."""
    found = []
    for query, mask, of_mask in zip(chosen, masks, quality, strict=True):
        if of_mask == 0:
            continue
        x, y, width, height = coco_mask.toBbox(mask).tolist()
        for pair in np.flatnonzero(queries == query):
            score = float(probabilities[pair] * of_mask)
            found.append(Instance(int(labels[pair]), score, mask, (x, y, width, height)))
    return tuple(sorted(found, key=lambda instance: -instance.score))


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
    probabilities = _probabilities(class_logits)
    labels, scores = probabilities.argmax(axis=1), probabilities.max(axis=1)
    kept = np.flatnonzero((labels != num_classes) & (scores > thresholds.object_mask_threshold))
    if kept.size == 0:
        return PanopticResult(np.zeros(geometry.original, np.int32), ())
    labels, scores = labels[kept], scores[kept]

    owned = owners(scores, Tiles(mask_logits[kept], geometry))
    return segments_of_owners(owned, labels, scores, is_thing, thresholds.overlap_threshold)


def segments_of_owners(
    owners: Owners,
    labels: Integer[np.ndarray, " q"],
    scores: Float32[np.ndarray, " q"],
    is_thing: Bool[np.ndarray, " k"],
    overlap_threshold: float,
) -> PanopticResult:
    """The segments of queries with these classes and scores."""
    owner, won, seen, held = owners
    segment_of = np.zeros(len(labels) + 1, np.int32)
    stuff_segment: dict[int, int] = {}
    members: list[list[int]] = []  # the queries of each segment, in order of their ids
    for query in np.flatnonzero(seen).tolist():
        if won[query] / held[query] < overlap_threshold:
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
            area=int(seen[queries].sum()),
        )
        for position, queries in enumerate(members)
    )
    return PanopticResult(segment_of.take(owner), segments)


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


def not_finite() -> OneFormerError:
    """What to raise where class logits are not finite: whatever is decided from them looks like a result."""
    hint = "its parameters are damaged, or its training diverged: use an earlier checkpoint, or lower its rate"
    return OneFormerError("the model returns numbers that are not finite", hint=hint)


def finished_result(
    logits: Mapping[Task, ImageLogits], geometry: Geometry, is_thing: Bool[np.ndarray, " k"], thresholds: Thresholds
) -> Result:
    """The results of the tasks that there are logits for. Raises OneFormerError where these are not finite."""
    results: dict[str, Any] = {}
    for task, of_task in logits.items():
        if not np.isfinite(of_task[0]).all():
            raise not_finite()
        if task == "semantic":
            results[task] = semantic_map(*of_task, geometry)
        else:
            segment = instance_segmentation if task == "instance" else panoptic_segmentation
            results[task] = segment(*of_task, geometry, is_thing, thresholds)
    return Result(**results)
