"""The thresholds of post-processing: what a spec sets under `model.test`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """Defaults are TAO's; the original uses 0.8, 0.8 and 150 on COCO.

    `object_mask_threshold`: a query whose best class probability does not exceed it makes no panoptic segment.
    `overlap_threshold`: a panoptic segment that keeps a smaller fraction of its own mask is dropped.
    `test_topk_per_image`: how many (query, class) pairs of an image compete as instances.
    """

    object_mask_threshold: float = 0.4
    overlap_threshold: float = 0.5
    test_topk_per_image: int = 100
