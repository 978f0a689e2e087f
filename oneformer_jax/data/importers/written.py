"""A split of imported labels as COCO: annotations, panoptic PNGs, and the pictures as links or copies.

Only a few pictures and the counts are in memory: annotations go to their file as they come.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Int32, Int64
from pycocotools import mask as coco_mask

from oneformer_jax.data.datasets.coco_instances import compress, run_lengths
from oneformer_jax.data.datasets.images import panoptic_colors, read_header
from oneformer_jax.data.geometry import Size
from oneformer_jax.data.importers.in_order import in_order
from oneformer_jax.data.importers.reader import Item, Reader, Regions, Shapes
from oneformer_jax.errors import DataError

ANNOTATIONS, IMAGES, PANOPTIC = "annotations.json", "images", "panoptic"
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89P": b"IEND"}  # of JPEG and PNG, by their beginnings
_TAIL = 1 << 16  # bytes, in which something may follow the end
_QUICK = [cv2.IMWRITE_PNG_COMPRESSION, 1]
if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # from OpenCV 4.12 on: one filter in place of a search for the best of five
    _QUICK += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]


@dataclass
class Counts:
    """What a split holds: pictures by their size (height, width) and by their number of segments that are no crowds;
    segments, pictures and pixels of each class index, pixels of no class as -1. `notes` say what was left out of
    pictures, `left_out` which were left out."""

    sizes: Counter[Size] = field(default_factory=Counter)
    segments_of_images: Counter[int] = field(default_factory=Counter)
    segments: Counter[int] = field(default_factory=Counter)
    images: Counter[int] = field(default_factory=Counter)
    pixels: Counter[int] = field(default_factory=Counter)
    crowds: int = 0
    notes: list[DataError] = field(default_factory=list)
    left_out: list[DataError] = field(default_factory=list)

    def add(self, labels: "_Labels") -> None:
        """Counts a picture."""
        self.sizes[labels.size] += 1
        counted = [entry.category for entry in labels.entries if not entry.iscrowd]
        self.segments_of_images[len(counted)] += 1
        self.segments.update(counted)
        self.images.update(set(counted))
        self.crowds += len(labels.entries) - len(counted)
        covered = 0
        for entry in labels.entries:
            self.pixels[-1 if entry.iscrowd else entry.category] += entry.area
            covered += entry.area
        self.pixels[-1] += max(0, labels.size[0] * labels.size[1] - covered)
        self.notes += labels.notes


class _Entry(NamedTuple):
    """A segment: `segmentation` only where masks may overlap."""

    id: int
    category: int
    iscrowd: bool
    area: int
    box: list[int]
    segmentation: Any = None


class _Labels(NamedTuple):
    """What was written of a picture."""

    file_name: str
    size: Size
    entries: list[_Entry]
    notes: tuple[DataError, ...]


def write_split(
    folder: Path,
    reader: Reader,
    items: Sequence[Item],
    *,
    copy: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Counts:
    """Writes `annotations.json`, `images/` and, where labels do not overlap, `panoptic/` to a folder. A picture that
    cannot be used is left out, and counted with its reason.

    Raises OSError: the disk takes no more.
    """
    counts = Counts()
    for name in (IMAGES, *([PANOPTIC] if reader.regions else [])):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with _annotations(folder / ANNOTATIONS, reader) as write:
        for done, labels in enumerate(in_order(partial(_write, folder, reader, copy), items), start=1):
            if isinstance(labels, DataError):
                counts.left_out.append(labels)
            else:
                counts.add(labels)
                write(labels)
            progress(done)
    return counts


def _write(folder: Path, reader: Reader, copy: bool, item: Item) -> _Labels | DataError:
    try:
        labels = reader.read(item)
        height, width = read_header(item.image).size
        _check_end(item.image)
        size = labels.ids.shape if isinstance(labels, Regions) else labels.size
        if size != (height, width):
            what = f"the labels are of {size[0]}x{size[1]} (height x width), the picture of {height}x{width}"
            hint = "pictures are turned upright by their EXIF orientation, masks are not"
            raise DataError(what, where=str((item.labels or (item.image,))[0]), hint=hint)
        notes = labels.notes
        if isinstance(labels, Regions):
            entries = _regions(labels)
        else:
            entries, notes = _shapes(labels, str((item.labels or (item.image,))[0]))
    except DataError as error:
        return error
    file_name = item.name + item.image.suffix.lower()
    if isinstance(labels, Regions):
        png = _place(folder / PANOPTIC / f"{item.name}.png")
        png.write_bytes(cv2.imencode(".png", panoptic_colors(labels.ids)[..., ::-1], _QUICK)[1].tobytes())
    picture = _place(folder / IMAGES / file_name)
    if copy:
        shutil.copyfile(item.image, picture)
    else:
        os.symlink(os.path.abspath(item.image), picture)
    return _Labels(file_name, (height, width), entries, notes)


def _check_end(picture: Path) -> None:
    """Raises DataError where a file ends in the middle, as a download does that broke off: its pixels are not read."""
    with picture.open("rb") as file:
        mark = _ENDS.get(file.read(2))
        file.seek(max(0, picture.stat().st_size - _TAIL))
        if mark is not None and mark not in file.read(_TAIL):
            raise DataError("the picture ends in the middle", where=str(picture), hint="get the file again")


def _place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _regions(labels: Regions) -> list[_Entry]:
    """The segments that have pixels."""
    areas, boxes = _extents(labels.ids)
    found = []
    for segment in labels.segments:
        if segment.id < len(areas) and areas[segment.id]:
            left, top, right, bottom = boxes[segment.id].tolist()
            box = [left, top, right - left + 1, bottom - top + 1]
            found.append(_Entry(segment.id, segment.category, segment.iscrowd, int(areas[segment.id]), box))
    return found


def _extents(ids: Int32[np.ndarray, "h w"]) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, "n 4"]]:
    """The pixels of each id, and the first and last column and row that it lies in: left, top, right, bottom. From runs
    of equal ids, which are far fewer than pixels."""
    flat, width = ids.reshape(-1), ids.shape[1]
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lasts = np.append(starts[1:], flat.size) - 1
    numbers = flat[starts]
    (top, left), (bottom, right) = np.divmod(starts, width), np.divmod(lasts, width)
    left[top != bottom], right[top != bottom] = 0, width - 1  # where a run goes on in the next row
    areas = np.bincount(numbers, weights=lasts - starts + 1).astype(np.int64)
    boxes = np.tile([width, ids.shape[0], -1, -1], (len(areas), 1))
    for column, (values, extreme) in enumerate(
        ((left, np.minimum), (top, np.minimum), (right, np.maximum), (bottom, np.maximum))
    ):
        extreme.at(boxes[:, column], numbers, values)
    return areas, boxes


def _shapes(labels: Shapes, where: str) -> tuple[list[_Entry], tuple[DataError, ...]]:
    """The masks that COCO can express, and why others are left out."""
    found, notes = list[_Entry](), list(labels.notes)
    for shape in labels.shapes:
        try:
            mask = run_lengths([compress(shape.segmentation, labels.size)], labels.size)[0]
        except DataError as error:
            notes.append(DataError(error.what, where=where, hint=error.hint))
            continue
        area, box = int(coco_mask.area(mask)), coco_mask.toBbox(mask).astype(int).tolist()
        found.append(_Entry(0, shape.category, shape.iscrowd, area, box, shape.segmentation))
    return found, tuple(notes)


@contextmanager
def _annotations(path: Path, reader: Reader) -> Iterator[Callable[[_Labels], None]]:
    """Yields what adds a picture to a new annotation file, which is complete when the block ends."""
    ids = [item.id for item in reader.categories.items]
    images = list[str]()
    numbers = count()
    with path.open("w", encoding="utf-8") as file:
        file.write('{"annotations": [')
        first = True

        def write(labels: _Labels) -> None:
            nonlocal first
            image = len(images) + 1
            size = {"height": labels.size[0], "width": labels.size[1]}
            images.append(json.dumps({"id": image, "file_name": labels.file_name, **size}))
            infos = [
                {
                    "category_id": ids[entry.category],
                    "iscrowd": int(entry.iscrowd),
                    "area": entry.area,
                    "bbox": entry.box,
                }
                for entry in labels.entries
            ]
            if reader.regions:
                infos = [{"id": entry.id, **info} for entry, info in zip(labels.entries, infos, strict=True)]
                name = PurePath(labels.file_name).with_suffix(".png").as_posix()
                entries = [{"image_id": image, "file_name": name, "segments_info": infos}]
            else:
                entries = [
                    {"id": next(numbers) + 1, "image_id": image, **info, "segmentation": entry.segmentation}
                    for entry, info in zip(labels.entries, infos, strict=True)
                ]
            for entry in entries:
                file.write(("\n" if first else ",\n") + json.dumps(entry))
                first = False

        yield write
        file.write('],\n"images": [\n' + ",\n".join(images) + '],\n"categories": ')
        file.write(json.dumps(reader.categories.to_json()) + "}\n")
