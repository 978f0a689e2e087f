"""The finished result of one image for any task."""

import numpy as np
from jaxtyping import Bool, Float, Shaped

from oneformer_jax.data.geometry import Geometry
from oneformer_jax.postprocess.instance import Instance, instance_segmentation
from oneformer_jax.postprocess.panoptic import PanopticResult, panoptic_segmentation
from oneformer_jax.postprocess.semantic import semantic_map
from oneformer_jax.postprocess.thresholds import Thresholds
from oneformer_jax.tasks import Task

Result = Shaped[np.ndarray, "height width"] | tuple[Instance, ...] | PanopticResult


def finished_result(
    task: Task,
    class_logits: Float[np.ndarray, "q k1"],
    mask_logits: Float[np.ndarray, "q h w"],
    geometry: Geometry,
    is_thing: Bool[np.ndarray, " k"],
    thresholds: Thresholds,
) -> Result:
    """semantic: class indices (H, W); instance: instances, best first; panoptic: segment ids with their segments."""
    if task == "semantic":
        return semantic_map(class_logits, mask_logits, geometry)
    if task == "instance":
        return instance_segmentation(class_logits, mask_logits, geometry, is_thing, thresholds)
    return panoptic_segmentation(class_logits, mask_logits, geometry, is_thing, thresholds)
