"""The annotation of one image in the form that all three metrics read."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int, Int16, Int32

from oneformer_jax.data.datasets.dataset import Segment, front


@dataclass(frozen=True)
class GroundTruth:
    """`planes` hold, at the original size, the row of each pixel's segment in the tables; -1 is void. Masks that
    overlap lie in several planes, each whole in one.

    `categories` are class indices, `iscrowd` marks regions of uncounted things.
    """

    planes: Int16[np.ndarray, "r h w"]
    categories: Int[np.ndarray, " t"]
    iscrowd: Bool[np.ndarray, " t"]

    @classmethod
    def from_segments(cls, planes: Int16[np.ndarray, "r h w"], segments: Sequence[Segment]) -> "GroundTruth":
        """From the planes of a data set (see `Dataset.read_segments`) and the segments of its record."""
        categories = np.array([segment.category for segment in segments], np.int64)
        return cls(planes, categories, np.array([segment.iscrowd for segment in segments], bool))

    @cached_property
    def index(self) -> Int16[np.ndarray, "h w"]:
        """One segment a pixel: where masks overlap, the one in front. What mIoU and PQ are measured against."""
        return front(self.planes)

    def class_map(self) -> Int32[np.ndarray, "h w"]:
        """Class index of every pixel, -1 where void. Crowd regions have a class like any other (as in the original's
        semantic ground truth of COCO; TAO ignores them)."""
        return np.append(self.categories, -1).astype(np.int32)[self.index]
