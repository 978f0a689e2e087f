"""Finished results for a batch of pictures, from any backend."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from oneformer_jax.data.geometry import Geometry, resize_and_pad
from oneformer_jax.evaluation.evaluator import Backend
from oneformer_jax.postprocess.result import Result, finished_result
from oneformer_jax.postprocess.thresholds import Thresholds
from oneformer_jax.tasks import Task


def predict_batch(
    backend: Backend,
    images: Sequence[UInt8[np.ndarray, "_h _w 3"]],
    task: Task,
    geometries: Sequence[Geometry],
    is_thing: Bool[np.ndarray, " k"],
    thresholds: Thresholds,
) -> list[Result]:
    """One result a picture, at its own size; the geometries must pad all pictures to one common size."""
    padded = np.stack([resize_and_pad(*pair) for pair in zip(images, geometries, strict=True)])
    sizes = np.array([geometry.resized for geometry in geometries], np.int32)
    class_logits, mask_logits = backend.predict(padded, sizes, [task])[task]
    return [
        finished_result(task, class_logits[i], mask_logits[i], geometry, is_thing, thresholds)
        for i, geometry in enumerate(geometries)
    ]
