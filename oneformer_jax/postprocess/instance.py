"""Instance segmentation: the best (query, class) pairs, each with the mask of its query.

Axes: q queries, k1 classes and no-object, k kept pairs, h w mask logits at stride 4.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from pycocotools import mask as coco_mask

from oneformer_jax.data.geometry import Geometry
from oneformer_jax.postprocess.probabilities import sigmoid, softmax
from oneformer_jax.postprocess.resize import tiles
from oneformer_jax.postprocess.thresholds import Thresholds

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
