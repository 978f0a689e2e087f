"""The panoptic annotation of one image in the form that all three metrics read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int32

from oneformer_jax.data.coco_panoptic import Segment
from oneformer_jax.postprocess.panoptic import PanopticResult, PanopticSegment


@dataclass(frozen=True)
class GroundTruth:
    """`index` holds, at the original size, the row of each pixel's segment in the tables; -1 is void.

    `categories` are class indices, `iscrowd` marks regions of uncounted things.
    """

    index: Int32[np.ndarray, "h w"]
    categories: Int[np.ndarray, " t"]
    iscrowd: Bool[np.ndarray, " t"]

    @classmethod
    def from_annotation(cls, panoptic: Int32[np.ndarray, "h w"], segments: Sequence[Segment]) -> "GroundTruth":
        """From the id map of the PNG and its segments. Ids that no segment lists are void."""
        categories = np.array([segment.category for segment in segments], np.int64)
        iscrowd = np.array([bool(segment.iscrowd) for segment in segments], bool)
        if not segments:
            return cls(np.full(panoptic.shape, -1, np.int32), categories, iscrowd)
        ids = np.array([segment.id for segment in segments], np.int32)
        order = np.argsort(ids)
        row = order[np.minimum(np.searchsorted(ids[order], panoptic), len(ids) - 1)]
        return cls(np.where(ids[row] == panoptic, row, -1).astype(np.int32), categories, iscrowd)

    def class_map(self) -> Int32[np.ndarray, "h w"]:
        """Class index of every pixel, -1 where void. Crowd regions have a class like any other (as in the original's
        semantic ground truth of COCO; TAO ignores them)."""
        return np.append(self.categories, -1).astype(np.int32)[self.index]

    def as_result(self, is_thing: Bool[np.ndarray, " k"]) -> PanopticResult:
        """The annotation in the form of a prediction with score 1, to draw or write it. Crowds become segments."""
        area = np.bincount(self.index.ravel() + 1, minlength=len(self.categories) + 1)[1:].tolist()
        segments = (
            PanopticSegment(row + 1, category, bool(is_thing[category]), 1.0, area[row])
            for row, category in enumerate(self.categories.tolist())
        )
        return PanopticResult(self.index + 1, tuple(segments))
