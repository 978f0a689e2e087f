"""Data sets without annotation files: images, masks with the id of a class for each pixel, a label map that names them.

A mask has the name of its image but for the suffix. Each class that it shows is one segment, and every class is stuff:
no mask tells one object from the next. The id 255 is no class unless the label map has it.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int16

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.dataset import (
    VOID,
    Dataset,
    EncodedRecord,
    Problems,
    Record,
    Segment,
    check_size,
)
from oneformer_jax.data.datasets.images import image_size, panoptic_colors, pictures_below, read_label_pixels
from oneformer_jax.data.storage.folders import innermost
from oneformer_jax.errors import DataError

IGNORED = 255
_MOST_THREADS = 16  # decoding releases the interpreter lock
_LARGEST_ID = 1 << 16


@dataclass(frozen=True, slots=True)
class MaskRecord(Record):
    """An image with the mask of its classes; segments have the id of their class plus 1."""

    mask_path: Path

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.image_path, self.mask_path)

    @property
    def panoptic_files(self) -> tuple[Path, ...]:
        return ()


class ClassMaskDataset(Dataset):
    """All images that have a mask, sorted by name. Every mask is read once, for the classes that it shows.

    Args:
        images_dir: the images; like the other, searched with its subfolders, and perhaps one level too high.
        masks_dir: grey values or positions in a palette.
        categories: which ids are classes; of them all become stuff.
        name: of this data set in the metrics.

    Raises:
        DataError: no mask has an image, masks without an image, masks of colours, ids that no class has.
    """

    records: tuple[MaskRecord, ...]

    def __init__(self, images_dir: Path, masks_dir: Path, categories: Categories, *, name: str = "") -> None:
        self.where = str(masks_dir)
        self.categories = Categories(tuple(replace(item, isthing=False) for item in categories.items))
        self._class_of = np.full(_LARGEST_ID, -2, np.int16)
        self._class_of[IGNORED] = VOID
        for index, item in enumerate(categories.items):
            if not 0 <= item.id < _LARGEST_ID:
                raise DataError(f"the id {item.id} of '{item.name}' is none that a mask can hold", where=self.where)
            self._class_of[item.id] = index
        pairs, problems = _pairs(images_dir, masks_dir), Problems()
        records = list[MaskRecord]()
        with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
            for found in pool.map(self._record, pairs):
                with problems.collected():
                    if isinstance(found, DataError):
                        raise found
                    records.append(found)
        problems.raise_all()
        self.records = tuple(records)
        self.parts = {name: range(len(records))}
        count = f"{len(records)} images, and every class is stuff"
        self.warnings = (f"{self.where} holds masks of classes, without annotations: {count}",)

    @property
    def planes(self) -> int:
        return 1

    def read_segments(self, i: int) -> Int16[np.ndarray, "1 h w"]:
        record = self.records[i]
        classes = self._classes(record.mask_path)
        check_size(classes.shape, record, record.mask_path)
        row_of = np.full(len(self.categories) + 1, VOID, np.int16)  # the last is for VOID
        for row, segment in enumerate(record.segments):
            row_of[segment.category] = row
        return row_of[classes][None]

    def encoded(self, i: int) -> EncodedRecord:
        record, planes = self.records[i], self.read_segments(i)
        ids = np.array([*(segment.id for segment in record.segments), 0], np.int32)[planes[0]]
        png = cv2.imencode(".png", panoptic_colors(ids)[..., ::-1])[1].tobytes()
        return EncodedRecord(record.image_path.read_bytes(), png, ())

    def _record(self, pair: tuple[str, Path, Path]) -> MaskRecord | DataError:
        name, image, mask = pair
        try:
            classes = self._classes(mask)
            height, width = image_size(image)
            shown = np.flatnonzero(np.bincount(classes.reshape(-1) + 1, minlength=1)[1:]).tolist()
        except DataError as error:
            return error
        segments = tuple(Segment(index + 1, index, False) for index in shown)
        record = MaskRecord(name, image, height, width, segments, mask)
        try:
            check_size(classes.shape, record, mask)
        except DataError as error:
            return error
        return record

    def _classes(self, mask: Path) -> Int16[np.ndarray, "h w"]:
        """The class index of each pixel, VOID for none."""
        pixels, _ = read_label_pixels(mask)
        if pixels.ndim == 3 or pixels.max(initial=0) >= _LARGEST_ID:
            hint = "a panoptic PNG needs dataset.<split>.annotations; `oneformer import` reads masks of colours"
            raise DataError("the mask holds colours, expected a class id for each pixel", where=str(mask), hint=hint)
        classes = self._class_of[pixels.astype(np.uint16)]
        if classes.min(initial=0) < VOID:
            wrong = int(pixels[classes < VOID].reshape(-1)[0])
            hint = "add it to dataset.label_map; 255 is no class"
            what = f"the mask holds {wrong}, which is the id of no class in the label map"
            raise DataError(what, where=str(mask), hint=hint)
        return classes


def holds_colors(masks_dir: Path) -> bool:
    """Whether the first mask holds colours, as panoptic PNGs do. Raises DataError."""
    return any(read_label_pixels(path)[0].ndim == 3 for path in list(_by_name(masks_dir).values())[:1])


def _pairs(images_dir: Path, masks_dir: Path) -> Sequence[tuple[str, Path, Path]]:
    images, masks = _by_name(images_dir), _by_name(masks_dir)
    common = sorted(images.keys() & masks.keys())
    if not common:
        raise DataError(f"no mask has the name of an image in {images_dir}", where=str(masks_dir))
    hint = "every mask needs an image of its name but for the suffix; `oneformer import` pairs other names"
    problems = Problems(
        DataError("the mask has no image of its name", where=str(masks[name]), hint=hint)
        for name in sorted(masks.keys() - images.keys())
    )
    problems.raise_all()
    return [(name, images[name], masks[name]) for name in common]


def _by_name(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError("the folder does not exist", where=str(folder))
    inner = innermost(folder)
    found: dict[str, Path] = {}
    for place in pictures_below(inner):
        path, name = inner / place, place.with_suffix("").as_posix()
        if name in found:
            raise DataError(f"{found[name].name} and {path.name} have the same name", where=str(path.parent))
        found[name] = path
    return found
