"""The finished results of one image.

Axes: q queries, k1 classes and no-object, k segments, h w mask logits at stride 4, height width the original image.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Shaped

from oneformer_jax.data.geometry import Geometry
from oneformer_jax.postprocess.instance import Instance, instance_segmentation
from oneformer_jax.postprocess.panoptic import PanopticResult, panoptic_segmentation
from oneformer_jax.postprocess.semantic import semantic_map
from oneformer_jax.postprocess.thresholds import Thresholds
from oneformer_jax.tasks import Task

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
    result = Result()
    for task, (class_logits, mask_logits) in logits.items():
        if task == "semantic":
            result = replace(result, semantic=semantic_map(class_logits, mask_logits, geometry))
        elif task == "instance":
            found = instance_segmentation(class_logits, mask_logits, geometry, is_thing, thresholds)
            result = replace(result, instance=found)
        else:
            segments = panoptic_segmentation(class_logits, mask_logits, geometry, is_thing, thresholds)
            result = replace(result, panoptic=segments)
    return result
