"""The contract between the data pipeline and the model: one training batch of fixed shape, and the targets in it.

Ground truth of an image is small integer maps instead of a dense mask per segment.

Axes: b images, h w pixels, r planes of a segment map, t rows of the segment table, p prompts of an image, m n k as many
numbers as there are segments.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Int, Int16, Int32, Int64, UInt, UInt8

from oneformer_jax.data.datasets.dataset import VOID, Segment, front
from oneformer_jax.tasks import Task

logger = logging.getLogger(__name__)

Array = Any  # np.ndarray on the host, jax.Array on the device


class Batch(NamedTuple):
    """Arrays of one training step (NumPy on the host, JAX on the device).

    Ground truth is indexed, not dense: pixel (y, x) of segment t of image b satisfies
    `segment_index[b, segment_plane[b, t], y, x] == t`; -1 marks pixels of no segment. A panoptic image needs one
    plane (R = 1); overlapping masks spread over several. Rows of the segment table are padded with class -1.
    `task` counts `spec.tasks.TASKS`; `prompts` are rows of the prompt table (`data.task_text`); `sample` is the
    global sample index that keys every random draw.
    """

    images: UInt8[Array, "b h w 3"]
    segment_index: Int[Array, "b r h w"]
    segment_class: Int[Array, "b t"]
    segment_plane: Int[Array, "b t"]
    task: Int[Array, " b"]
    prompts: Int[Array, "b p"]
    sample: Int[Array, " b"]


@dataclass(frozen=True)
class SegmentTargets:
    """Ground truth of one image for one task, laid out as `Batch` describes it.

    `index` (R, H, W) holds rows of the segment table or `VOID`; `classes` and `planes` (T,) are the table, whose
    first `count` rows are filled in the order of class indices; the others have class -1 and plane 0.
    """

    index: Int16[np.ndarray, "r h w"]
    classes: Int32[np.ndarray, " t"]
    planes: Int32[np.ndarray, " t"]
    count: int


def segment_targets(
    planes: Int16[np.ndarray, "r h w"],
    segments: Sequence[Segment],
    task: Task,
    is_thing: Bool[np.ndarray, " k"],
    max_segments: int,
    num_planes: int = 1,
) -> SegmentTargets:
    """Targets of an image for one task.

    instance: the things, whole, even where they overlap. semantic and panoptic: one label a pixel, that of the
    segment in front; semantic unites the segments of a class, panoptic keeps them apart. Crowds are no segments, and
    neither is what no pixel shows any more. Of more than `max_segments` the largest stay, with a warning.

    Args:
        planes: positions in `segments`, `VOID` elsewhere (see `Dataset.read_segments`).
        is_thing: for each of K classes.
        max_segments: T, the fixed number of rows of the table.
        num_planes: R, the fixed number of planes, at least `Dataset.planes`.
    """
    if task != "instance":
        planes = front(planes)[None]
    # The last entry belongs to VOID = -1.
    group_of = np.full(len(segments) + 1, VOID, np.int16)
    classes: list[int] = []
    by_class: dict[int, int] = {}
    for position, segment in enumerate(segments):
        if segment.iscrowd or (task == "instance" and not is_thing[segment.category]):
            continue
        if task == "semantic" and segment.category in by_class:
            group_of[position] = by_class[segment.category]
            continue
        by_class[segment.category] = group_of[position] = len(classes)
        classes.append(segment.category)

    # Bytes are counted and looked up faster than larger numbers; 0 is VOID.
    codes = (planes + np.int16(1)).astype(np.uint8 if len(segments) < 256 else np.uint16)
    shown = np.stack([_counts(plane, len(segments) + 1)[1:] for plane in codes])
    pixels = np.zeros((len(planes), len(classes)), np.int64)
    grouped = np.flatnonzero(group_of[:-1] >= 0)
    np.add.at(pixels.T, group_of[grouped], shown.T[grouped])
    if pixels[num_planes:].any():
        raise ValueError(f"the segments of an image need more than {num_planes} planes")
    kept = _kept(np.array(classes, np.int32), pixels.sum(axis=0), max_segments)

    row_of = np.full(len(classes) + 1, VOID, np.int16)
    row_of[kept] = np.arange(len(kept), dtype=np.int16)
    index = np.full((num_planes, *planes.shape[1:]), VOID, np.int16)
    for plane, of_plane in zip(codes, index, strict=False):
        of_plane[:] = _looked_up(np.roll(row_of[group_of], 1), plane)
    table, plane_of = np.full(max_segments, -1, np.int32), np.zeros(max_segments, np.int32)
    table[: len(kept)] = np.array(classes, np.int32)[kept]
    plane_of[: len(kept)] = pixels.argmax(axis=0)[kept]
    return SegmentTargets(index, table, plane_of, len(kept))


def _counts(codes: UInt[np.ndarray, "h w"], bins: int) -> Int64[np.ndarray, " bins"]:
    return cv2.calcHist([codes], [0], None, [bins], [0, bins]).ravel().astype(np.int64)


def _looked_up(table: Int16[np.ndarray, " n"], codes: UInt[np.ndarray, "h w"]) -> Int16[np.ndarray, "h w"]:
    if codes.dtype != np.uint8:
        return table.take(codes)
    return cv2.LUT(codes, np.resize(table, 256))


def _kept(classes: Int32[np.ndarray, " n"], area: Int[np.ndarray, " n"], max_segments: int) -> Int[np.ndarray, " m"]:
    """Positions of the segments that enter the table, in the order of their rows."""
    kept = np.flatnonzero(area)
    if len(kept) > max_segments:
        _warn_once(len(kept), max_segments)
        kept = np.sort(kept[np.argsort(-area[kept], kind="stable")[:max_segments]])
    return kept[np.argsort(classes[kept], kind="stable")]


_warned = threading.Event()


def _warn_once(count: int, max_segments: int) -> None:
    if not _warned.is_set():
        _warned.set()
        logger.warning(
            "An image shows %d segments, more than the %d rows of the segment table: the smallest are left out. "
            "This is said once.",
            count,
            max_segments,
        )
