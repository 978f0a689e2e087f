"""Data sets in COCO instances format: a JSON file whose annotations are masks, and an image folder.

Masks come in COCO's notations (polygons, run lengths) and are checked before C code reads them.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16, Int64, Shaped
from pycocotools import mask as coco_mask

from oneformer_jax.data.datasets.categories import Categories, short
from oneformer_jax.data.datasets.coco_file import (
    CocoFile,
    class_index,
    crowd,
    refuse_second,
    required,
    stated_size,
)
from oneformer_jax.data.datasets.dataset import VOID, Dataset, EncodedRecord, Record, Segment, check_segments, naming
from oneformer_jax.data.geometry import Size
from oneformer_jax.errors import DataError

_MAX_PLANES = 256
_MAX_OUTLINE = 4_000_000  # pixels along a polygon: drawing it takes 100 times as many bytes
_ROWS = 256  # of the table of overlaps at a time

RunLengths = dict[str, Any]  # pycocotools' form of a mask: size (height, width) and compressed counts


@dataclass(frozen=True, slots=True)
class InstanceRecord(Record):
    """Segments are listed from front to back: the smaller before the larger, crowds last. `counts` are the compressed
    run lengths of their masks, which may overlap."""

    counts: tuple[bytes, ...]

    @property
    def masks(self) -> list[RunLengths]:
        return run_lengths(self.counts, (self.height, self.width))


class InstanceDataset(Dataset):
    """All images of one file, in file order: an image without annotations shows none of the classes.

    Args:
        images_dir: the image folder, possibly one level too high if it holds one folder only; None if every image
            record carries its own `img_path`.
        coco: the annotation file.
        contiguous_id: True: class index = position in `categories`; False: class index = raw id, ids are 0..K-1.
        name: of this data set in the metrics.

    Raises:
        DataError: anything missing, duplicate or contradictory; the message names the file and the entry.
    """

    records: tuple[InstanceRecord, ...]

    def __init__(
        self,
        images_dir: Path | None,
        coco: CocoFile,
        *,
        contiguous_id: bool = True,
        name: str = "",
    ) -> None:
        self.where = coco.where
        self.categories = coco.parse_categories(contiguous_id=contiguous_id)
        self.notes, problems = coco.notes, coco.problems()
        images, seen = coco.images_by_id(problems), set[int]()
        problems.raise_all()
        annotations = defaultdict(list)
        for entry in coco.annotations:
            with problems.collected():
                image, number = coco.image_of(entry, images), _annotation_id(entry, self.where)
                refuse_second(number, seen, "annotation", self.where)
                seen.add(number)
                annotations[image["id"]].append(entry)
        paths: list[Path | None] = [None] * len(images)
        with problems.collected():
            paths = coco.located(list(images.values()), lambda some: coco.image_paths(some, images_dir))
        records = []
        for image, path in zip(images.values(), paths, strict=True):
            if path:
                with problems.collected():
                    records.append(_record(image, path, annotations[image["id"]], self.categories, coco))
        problems.raise_all()
        self.records = tuple(records)
        self.parts = {name: range(len(records))}

    @cached_property
    def planes(self) -> int:
        def last_plane(record: InstanceRecord) -> int:
            with naming(record):
                return max(_first_fit(record.masks[: sum(not s.iscrowd for s in record.segments)]), default=0)

        return max(map(last_plane, self.records), default=0) + 1

    def read_segments(self, i: int) -> Int16[np.ndarray, "r h w"]:
        record = self.records[i]
        return mask_planes(record.masks, (record.height, record.width))

    def encoded(self, i: int) -> EncodedRecord:
        return EncodedRecord(self.records[i].image_path.read_bytes(), b"", self.records[i].counts)


def run_lengths(counts: Sequence[bytes], size: Size) -> list[RunLengths]:
    """Compressed counts of an image of `size` (height, width) in pycocotools' form."""
    return [{"size": list(size), "counts": mask} for mask in counts]


def mask_planes(masks: Sequence[RunLengths], size: Size) -> Int16[np.ndarray, "r h w"]:
    """Where masks lie in an image of `size` (height, width), front to back (see `Dataset.read_segments`)."""
    plane_of = _first_fit(masks)
    planes = np.full((max(plane_of, default=0) + 1, *size), VOID, np.int16)
    for position, (mask, plane) in enumerate(zip(masks, plane_of, strict=True)):
        left, top, width, height = coco_mask.toBbox(mask).astype(int)
        box = np.s_[top : top + height, left : left + width]
        planes[plane][box][coco_mask.decode(mask)[box].view(bool)] = position
    return planes


def _first_fit(masks: Sequence[RunLengths]) -> list[int]:
    """The plane of each mask: the first in which it overlaps none of the masks before it. Raises DataError: more than
    `_MAX_PLANES` masks lie over each other."""
    planes: list[int] = []
    for start in range(0, len(masks), _ROWS):
        rows = masks[start : start + _ROWS]
        overlap = coco_mask.iou(rows, masks[: start + len(rows)], [1] * (start + len(rows))) > 0
        for position, overlapped in enumerate(overlap, start):
            taken = {planes[other] for other in np.flatnonzero(overlapped[:position])}
            planes.append(next(plane for plane in range(len(taken) + 1) if plane not in taken))
            if planes[-1] == _MAX_PLANES:
                raise DataError(f"more than {_MAX_PLANES} masks of one image lie over each other")
    return planes


def _annotation_id(entry: Any, where: str) -> int:
    number = required(entry, "id", where)
    if type(number) is not int or abs(number) >> 63:
        raise DataError(f"the id of an annotation must be an integer of 64 bits, not {short(number)}", where=where)
    return number


def _record(
    image: dict[str, Any], path: Path, annotations: list[dict[str, Any]], categories: Categories, coco: CocoFile
) -> InstanceRecord:
    place = f"{coco.where}: image {image['id']}"
    height, width = stated_size(image, path, place)
    check_segments(len(annotations), place)
    found, problems = [], coco.problems()
    for entry in annotations:
        with problems.collected():
            found.append(_segment(entry, (height, width), categories, coco.where))
    problems.raise_all()
    # One by one: of 256 or more at once, pycocotools 2.0.11 raises OverflowError.
    areas = [coco_mask.area(mask) for mask in run_lengths([counts for _, counts in found], (height, width))]
    order = sorted(range(len(found)), key=lambda n: (found[n][0].iscrowd, areas[n]))
    segments, counts = tuple(found[n][0] for n in order), tuple(found[n][1] for n in order)
    return InstanceRecord(image["id"], path, height, width, segments, counts)


def _segment(entry: dict[str, Any], size: tuple[int, int], categories: Categories, where: str) -> tuple[Segment, bytes]:
    place = f"{where}: annotation {entry['id']}"
    segment = Segment(entry["id"], class_index(entry, categories, place), crowd(entry, place))
    try:
        return segment, compress(entry["segmentation"], size)
    except DataError as error:
        raise DataError(error.what, where=place, hint=error.hint) from None


def compress(segmentation: Any, size: Size) -> bytes:
    """The compressed run lengths of a mask in an image of `size` (height, width).

    Args:
        segmentation: a list of polygons `[x0, y0, x1, y1, ...]`, or an object with `size` and `counts`: a list of
            numbers or, compressed, a text.

    Raises DataError: anything else, or a mask that does not fit the image.
    """
    height, width = size
    if isinstance(segmentation, dict):
        if segmentation.get("size") != [height, width]:
            stated = short(segmentation.get("size"))
            raise DataError(f"the mask is of size {stated}, the image of [{height}, {width}] (height, width)")
        counts = segmentation.get("counts")
        if isinstance(counts, str):
            _check_runs(_decompressed(counts), size)
            return counts.encode()
        runs = _numbers(counts)
        if runs is None or runs.dtype.kind != "i":
            raise DataError("the counts of a mask must be a string or a list of integers")
        _check_runs(runs, size)
        return coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)["counts"]
    if not isinstance(segmentation, list) or not segmentation:
        raise DataError(
            "the segmentation is empty or not a list of polygons",
            hint="annotations that contain only boxes have no masks to train on",
        )
    polygons = [_polygon(polygon, size) for polygon in segmentation]
    return coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))["counts"]


def _numbers(values: Any) -> Shaped[np.ndarray, " n"] | None:
    """A one-dimensional array of integers or floats, None where `values` are anything else."""
    try:
        array = np.array(values)
    except ValueError:  # lists of several lengths
        return None
    return array if array.ndim == 1 and array.dtype.kind in "if" else None


def _polygon(polygon: Any, size: Size) -> list[float]:
    points = _numbers(polygon)
    if points is None or len(points) < 6 or len(points) % 2:
        raise DataError(f"a polygon must be a list of three or more points x, y, not {short(polygon)}")
    # Exact outlines may leave the image by a little; numbers far outside would make huge outlines.
    reach = np.tile([size[1], size[0]], len(points) // 2)
    if not ((points >= -reach) & (points <= 2 * reach)).all():  # not a number is never inside
        raise DataError(f"a polygon lies outside the image of {size[0]}x{size[1]} (height x width)")
    corners = points.reshape(-1, 2).astype(float)
    outline = np.abs(corners - np.roll(corners, 1, axis=0)).max(axis=1).sum()
    if outline > _MAX_OUTLINE:
        raise DataError(f"the outline of a polygon is {outline:.0f} pixels long, at most {_MAX_OUTLINE} are drawn")
    return points.astype(float).tolist()


def _check_runs(runs: Int64[np.ndarray, " n"], size: Size) -> None:
    pixels = size[0] * size[1]
    if (runs < 0).any() or (runs > pixels).any() or runs.sum() != pixels:
        raise DataError(f"the run lengths of a mask do not cover the image of {size[0]}x{size[1]} (height x width)")


def _decompressed(text: str) -> Int64[np.ndarray, " n"]:
    """The run lengths of COCO's text: groups of five bits, low ones first, from character 48 on; bit 6 says that more
    follow. From the fourth run on, differences to the run two before."""
    if not text.isascii():
        raise DataError("the counts of a mask are not valid compressed run lengths")
    digits = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(digits & 32 == 0)
    lengths = np.diff(ends, prepend=-1)
    complete = ends.size and ends[-1] == digits.size - 1 and lengths.max() <= 7
    if not complete or digits.min() < 0 or digits.max() > 63:
        raise DataError("the counts of a mask are not valid compressed run lengths")
    starts = ends - lengths + 1
    place = np.arange(digits.size) - np.repeat(starts, lengths)
    runs = np.add.reduceat((digits & 31) << (5 * place), starts)
    runs -= np.where(digits[ends] & 16, np.int64(1) << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs
