"""The detections of Roboflow's package supervision."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from oneformer_jax.errors import needs
from oneformer_jax.postprocess.segments import Segment


def detections_of(segments: Sequence[Segment]) -> Any:
    """A `supervision.Detections`: boxes, masks, scores (none of classes in a class map), class indices and names.

    Raises OneFormerError: the package is not installed.
    """
    with needs("supervision"):
        import supervision
    if not segments:
        return supervision.Detections.empty()
    scores = [segment.score for segment in segments]
    return supervision.Detections(
        xyxy=np.array([segment.box for segment in segments], np.float32),
        mask=np.stack([segment.mask for segment in segments]),
        confidence=None if None in scores else np.array(scores, np.float32),
        class_id=np.array([segment.category for segment in segments]),
        data={"class_name": np.array([segment.name for segment in segments])},
    )
