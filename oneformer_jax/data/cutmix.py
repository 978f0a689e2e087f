"""CutMix (Yun et al. 2019) for segmentation: a rectangle of one sample is replaced by that of another."""

import numpy as np
from jaxtyping import Int16, UInt8

from oneformer_jax.data.datasets.dataset import VOID, Segment

Sample = tuple[UInt8[np.ndarray, "h w 3"], Int16[np.ndarray, "_r h w"], tuple[Segment, ...]]
"""Image, planes (see `Dataset.read_segments`) and segments."""


def cutmix(sample: Sample, other: Sample, rng: np.random.Generator) -> Sample:
    """`sample` with a rectangle of `other`, of a share of the area that is uniform in 0..1, anywhere.

    Pixels and planes come from the same sample everywhere; targets and prompts then follow from the planes.
    """
    (image, planes, segments), (other_image, other_planes, other_segments) = sample, other
    height, width = image.shape[:2]
    side = np.sqrt(rng.uniform())
    h, w = int(height * side + 0.5), int(width * side + 0.5)
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    box = (..., slice(top, top + h), slice(left, left + w))

    count = max(len(planes), len(other_planes))
    mixed, pasted = _with_planes(planes, count), _with_planes(other_planes, count)[box]
    mixed[box] = np.where(pasted == VOID, VOID, pasted + np.int16(len(segments)))
    image = image.copy()
    image[box[1:]] = other_image[box[1:]]
    return image, mixed, segments + other_segments


def _with_planes(planes: Int16[np.ndarray, "_r h w"], count: int) -> Int16[np.ndarray, "_n h w"]:
    """A copy with empty planes behind, `count` in all."""
    more = np.full((count - len(planes), *planes.shape[1:]), VOID, np.int16)
    return np.concatenate([planes, more])
