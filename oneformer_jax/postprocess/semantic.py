"""Semantic segmentation: every query votes for classes with its class probabilities, weighted by its mask.

Axes: q queries, k1 classes and no-object, k classes, h w mask logits at stride 4, height width the original image, r c
one tile of it.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Shaped

from oneformer_jax.data.geometry import Geometry
from oneformer_jax.postprocess.probabilities import sigmoid, softmax
from oneformer_jax.postprocess.resize import tiles


def semantic_map(
    class_logits: Float[np.ndarray, "q k1"], mask_logits: Float[np.ndarray, "q h w"], geometry: Geometry
) -> Shaped[np.ndarray, "height width"]:
    """Class index of every pixel of the original image, in the smallest unsigned integer type that holds K classes.

    The rule is that of the original (mask logits resized to full size, then sigmoid and sum over queries); Hugging
    Face sums at stride 4 and resizes the sums instead.
    """
    classes = np.empty(geometry.original, np.min_scalar_type(class_logits.shape[1] - 2))
    for rows, columns, scores in _score_tiles(class_logits, mask_logits, geometry):
        classes[rows, columns] = scores.argmax(axis=-1)
    return classes


def semantic_scores(
    class_logits: Float[np.ndarray, "q k1"], mask_logits: Float[np.ndarray, "q h w"], geometry: Geometry
) -> Float[np.ndarray, "k height width"]:
    """The sums whose argmax is `semantic_map`: not normalised, as in the original."""
    result = np.empty((class_logits.shape[1] - 1, *geometry.original), np.float32)
    for rows, columns, scores in _score_tiles(class_logits, mask_logits, geometry):
        result[:, rows, columns] = np.moveaxis(scores, -1, 0)
    return result


def _score_tiles(
    class_logits: Float[np.ndarray, "q k1"], mask_logits: Float[np.ndarray, "q h w"], geometry: Geometry
) -> Iterator[tuple[slice, slice, Float[np.ndarray, "r c k"]]]:
    probabilities = softmax(class_logits.astype(np.float32, copy=False))[:, :-1]
    for rows, columns, logits in tiles(mask_logits, geometry):
        masks = sigmoid(logits)
        scores = masks.reshape(len(masks), -1).T @ probabilities
        yield rows, columns, scores.reshape(*logits.shape[1:], -1)
