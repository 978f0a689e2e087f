"""Segment-index targets: an image's ground truth as small integer maps instead of a dense mask per segment."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int16, Int32

from oneformer_jax.data.coco_panoptic import Segment
from oneformer_jax.errors import DataError
from oneformer_jax.spec.tasks import Task

logger = logging.getLogger(__name__)

VOID = -1  # a pixel of no segment; negative, so that it can never be the index or id of one
_UNLISTED = -2


@dataclass(frozen=True)
class SegmentTargets:
    """Ground truth of one image for one task, laid out as `data.batch.Batch` describes it.

    `index` (R, H, W) holds rows of the segment table or `VOID`; `classes` and `planes` (T,) are the table, whose
    first `count` rows are filled in the order of class indices; the others have class -1 and plane 0.
    """

    index: Int16[np.ndarray, "r h w"]
    classes: Int32[np.ndarray, " t"]
    planes: Int32[np.ndarray, " t"]
    count: int


class _IdTable(threading.local):
    """A lookup table over all 24-bit segment ids, one a thread (32 MiB): a gather is many times faster than a sort."""

    def __init__(self) -> None:
        self.rows = np.full(1 << 24, _UNLISTED, np.int16)
        self.rows[0] = VOID


_id_table = _IdTable()


def segment_rows(
    ids: Int32[np.ndarray, "h w"], segments: Sequence[Segment], *, where: str = ""
) -> Int16[np.ndarray, "h w"]:
    """Replaces segment ids by positions in `segments`, id 0 by `VOID`.

    Raises DataError: the PNG holds an id that `segments` does not list.
    """
    listed = np.array([segment.id for segment in segments], np.intp)
    table = _id_table.rows
    table[listed] = np.arange(len(listed), dtype=np.int16)
    rows = table[ids]
    table[listed] = _UNLISTED
    if rows.min(initial=0) == _UNLISTED:
        unlisted = int(ids[rows == _UNLISTED][0])
        raise DataError(f"the panoptic PNG holds segment id {unlisted}, which segments_info does not list", where=where)
    return rows


def segment_targets(
    rows: Int16[np.ndarray, "h w"],
    segments: Sequence[Segment],
    task: Task,
    is_thing: Bool[np.ndarray, " k"],
    max_segments: int,
    planes: int = 1,
) -> SegmentTargets:
    """Targets of a panoptic image, whose segments do not overlap: plane 0 holds all of them.

    semantic: one segment for each class; instance: the things; panoptic: all. Crowds are no segments, and neither is
    what no pixel shows any more. Of more than `max_segments` the largest stay, with a warning.

    Args:
        rows: positions in `segments`, `VOID` elsewhere (see `segment_rows`).
        is_thing: for each of K classes.
        max_segments: T, the fixed number of rows of the table.
        planes: R, the fixed number of planes.
    """
    # The last entry of each lookup table belongs to VOID = -1.
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

    pixels = np.bincount(rows.ravel() + np.intp(1), minlength=len(segments) + 1)[1:]
    area = np.zeros(len(classes), np.int64)
    np.add.at(area, group_of[:-1][group_of[:-1] >= 0], pixels[group_of[:-1] >= 0])
    kept = _kept(np.array(classes, np.int32), area, max_segments)

    row_of = np.full(len(classes) + 1, VOID, np.int16)
    row_of[kept] = np.arange(len(kept), dtype=np.int16)
    index = np.full((planes, *rows.shape), VOID, np.int16)
    index[0] = row_of[group_of][rows]
    table = np.full(max_segments, -1, np.int32)
    table[: len(kept)] = np.array(classes, np.int32)[kept]
    return SegmentTargets(index, table, np.zeros(max_segments, np.int32), len(kept))


def overlapping_targets(
    masks: Bool[np.ndarray, "n h w"], classes: Int32[np.ndarray, " n"], max_segments: int, planes: int
) -> SegmentTargets:
    """Targets of masks that may overlap: each goes into the first plane where it meets nobody.

    Empty masks are dropped; of more than `max_segments` the largest stay, with a warning.
    Raises DataError: more than `planes` planes are needed.
    """
    kept = _kept(classes, masks.sum((1, 2)), max_segments)
    index = np.full((planes, *masks.shape[1:]), VOID, np.int16)
    table = np.full(max_segments, -1, np.int32)
    plane_of = np.zeros(max_segments, np.int32)
    for row, position in enumerate(kept):
        mask = masks[position]
        plane = next((r for r in range(planes) if not (index[r][mask] >= 0).any()), None)
        if plane is None:
            raise DataError(f"the masks of an image overlap more than {planes} times")
        index[plane][mask] = row
        table[row], plane_of[row] = classes[position], plane
    return SegmentTargets(index, table, plane_of, len(kept))


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
