"""Data sets in COCO panoptic format: a JSON file, an image folder and a folder of panoptic PNGs."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16, Int32

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.coco_file import (
    CocoFile,
    class_index,
    crowd,
    located,
    refuse_second,
    required,
    stated_size,
    text,
)
from oneformer_jax.data.datasets.dataset import (
    VOID,
    Dataset,
    EncodedRecord,
    Record,
    Segment,
    check_segments,
    check_size,
)
from oneformer_jax.data.datasets.images import ImageFile, read_panoptic
from oneformer_jax.errors import DataError

_UNLISTED = -2


@dataclass(frozen=True, slots=True)
class PanopticRecord(Record):
    """Segments are listed in file order; they do not overlap."""

    panoptic_path: Path

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.image_path, self.panoptic_path)


class PanopticDataset(Dataset):
    """The annotated images of one file, in file order. Images without annotation are not part of it.

    Args:
        images_dir: the image folder; None if every image record carries its own `img_path`.
        panoptic_dir: the folder of panoptic PNGs. Either folder may be one level too high if it holds one folder only.
        coco: the annotation file.
        contiguous_id: True: class index = position in `categories`; False: class index = raw id, ids are 0..K-1.
        name: of this data set in the metrics.

    Raises:
        DataError: anything missing, duplicate or contradictory; the message names the file and the entry.
    """

    records: tuple[PanopticRecord, ...]

    def __init__(
        self,
        images_dir: Path | None,
        panoptic_dir: Path,
        coco: CocoFile,
        *,
        contiguous_id: bool = True,
        name: str = "",
    ) -> None:
        self.where = where = coco.where
        self.categories = coco.parse_categories(contiguous_id=contiguous_id)
        self.notes, problems = coco.notes, coco.problems()
        images = coco.images_by_id(problems)
        problems.raise_all()
        pairs: dict[int | str, tuple[dict[str, Any], dict[str, Any]]] = {}
        for entry in coco.annotations:
            with problems.collected():
                image = coco.image_of(entry, images)
                refuse_second(image["id"], pairs, "annotated image", where)
                pairs[image["id"]] = entry, image
        entries, annotated = [entry for entry, _ in pairs.values()], [image for _, image in pairs.values()]
        image_paths: list[Path | None] = [None] * len(pairs)
        png_paths = image_paths
        with problems.collected():
            image_paths = coco.located(annotated, lambda some: coco.image_paths(some, images_dir))
        with problems.collected():
            png_paths = coco.located(
                entries,
                lambda some: located([text(entry, "file_name", where) for entry in some], panoptic_dir, "panoptic PNG"),
            )
        records = []
        for entry, image, image_path, png_path in zip(entries, annotated, image_paths, png_paths, strict=True):
            if image_path and png_path:
                with problems.collected():
                    records.append(_record(entry, image, image_path, png_path, self.categories, where))
        problems.raise_all()
        self.records = tuple(records)
        self.parts = {name: range(len(records))}

    @property
    def planes(self) -> int:
        return 1

    def read_segments(self, i: int) -> Int16[np.ndarray, "1 h w"]:
        return panoptic_plane(self.records[i].panoptic_path, self.records[i])

    def encoded(self, i: int) -> EncodedRecord:
        record = self.records[i]
        return EncodedRecord(record.image_path.read_bytes(), record.panoptic_path.read_bytes(), ())


def panoptic_plane(file: ImageFile, record: Record) -> Int16[np.ndarray, "1 h w"]:
    """The segments of a panoptic PNG (see `Dataset.read_segments`). Raises DataError."""
    ids = read_panoptic(file)
    check_size(ids.shape, record, file)
    return segment_rows(ids, record.segments, where=str(file))[None]


def _record(
    annotation: dict[str, Any],
    image: dict[str, Any],
    image_path: Path,
    panoptic_path: Path,
    categories: Categories,
    where: str,
) -> PanopticRecord:
    place = f"{where}: image {image['id']}"
    height, width = stated_size(image, image_path, place)
    infos = required(annotation, "segments_info", place)
    if not isinstance(infos, list):
        raise DataError("segments_info must be a list", where=place)
    check_segments(len(infos), place)
    segments = tuple(
        Segment(required(info, "id", place), class_index(info, categories, place), crowd(info, place)) for info in infos
    )
    seen: set[int] = set()
    for number in [segment.id for segment in segments]:
        if type(number) is not int or not 0 < number < 1 << 24:
            raise DataError("segment ids must be integers from 1 to 16777215 (0 is void)", where=place)
        refuse_second(number, seen, "segment", place)
        seen.add(number)
    return PanopticRecord(image["id"], image_path, height, width, segments, panoptic_path)


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

    Raises DataError: the PNG holds an id that `segments` does not list, or they list one that no colour stands for.
    """
    listed = np.array([segment.id for segment in segments], np.intp)
    table = _id_table.rows
    if listed.size and not 0 <= listed.min() <= listed.max() < len(table):
        wrong = listed[(listed < 0) | (listed >= len(table))][0]
        raise DataError(f"segment id {wrong} is none that colours can stand for, up to {len(table) - 1}", where=where)
    table[listed] = np.arange(len(listed), dtype=np.int16)
    rows = table[ids]
    table[listed] = _UNLISTED
    if rows.min(initial=0) == _UNLISTED:
        unlisted = int(ids[rows == _UNLISTED][0])
        raise DataError(f"the panoptic PNG holds segment id {unlisted}, which segments_info does not list", where=where)
    return rows
