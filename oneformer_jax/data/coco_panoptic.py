"""Data sets in COCO panoptic format: a JSON file, an image folder and a folder of panoptic PNGs."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from oneformer_jax.data.categories import Categories, read_json
from oneformer_jax.data.images import image_size, read_image, read_panoptic
from oneformer_jax.errors import DataError

logger = logging.getLogger(__name__)


class Segment(NamedTuple):
    """One segment of an image: its id in the PNG, its class index, and whether it marks a crowd."""

    id: int
    category: int
    iscrowd: bool


@dataclass(frozen=True, slots=True)
class Record:
    """One annotated image; sizes in pixels, of the upright image."""

    image_id: int | str
    image_path: Path
    panoptic_path: Path
    height: int
    width: int
    segments: tuple[Segment, ...]


class PanopticDataset:
    """The annotated images of one split, in file order. Images without annotation are not part of it.

    Everything that can be known from the JSON file and the folder listings is checked here, before long work starts;
    pixels are checked when they are read.

    Args:
        images_dir: the image folder; None if every image record carries its own `img_path`.
        panoptic_dir: the folder of panoptic PNGs. Either folder may be one level too high if it holds one folder only.
        annotations_json: COCO panoptic JSON with `images`, `annotations` and `categories`.
        contiguous_id: True: class index = position in `categories`; False: class index = raw id, ids are 0..K-1.

    Raises:
        DataError: anything missing, duplicate or contradictory; the message names the file and the entry.
    """

    def __init__(
        self, images_dir: Path | None, panoptic_dir: Path, annotations_json: Path, *, contiguous_id: bool = True
    ) -> None:
        self.annotations_json = annotations_json
        content = read_json(annotations_json)
        where = str(annotations_json)
        for key in ("images", "annotations", "categories"):
            if not isinstance(content, dict) or not isinstance(content.get(key), list):
                raise DataError(f"no list '{key}': this is not COCO panoptic JSON", where=where)
        if not content["annotations"]:
            raise DataError("the data set is empty: no annotation", where=where)
        self.categories = Categories.from_json(
            content["categories"], where=where, contiguous_id=contiguous_id, isthing_required=True
        )
        images = _by_id(content["images"], where)
        _check_unique([entry.get("image_id") for entry in content["annotations"]], "annotated image", where)
        pairs = [(entry, _image_of(entry, images, where)) for entry in content["annotations"]]
        image_paths = _image_paths([image for _, image in pairs], images_dir, where)
        panoptic_paths = _located([_key(e, "file_name", where) for e, _ in pairs], panoptic_dir, "panoptic PNG")
        self.records: tuple[Record, ...] = tuple(
            _record(entry, image, image_path, panoptic_path, self.categories, where)
            for (entry, image), image_path, panoptic_path in zip(pairs, image_paths, panoptic_paths, strict=True)
        )

    def __len__(self) -> int:
        return len(self.records)

    def read_image(self, i: int) -> UInt8[np.ndarray, "h w 3"]:
        """Upright RGB pixels of record `i`. Raises DataError: unreadable, or another size than the JSON file says."""
        record = self.records[i]
        image = read_image(record.image_path)
        _check_size(image.shape[:2], record, record.image_path)
        return image

    def read_panoptic(self, i: int) -> Int32[np.ndarray, "h w"]:
        """Segment ids of record `i`. Raises DataError: unreadable, or another size than the image."""
        record = self.records[i]
        ids = read_panoptic(record.panoptic_path)
        _check_size(ids.shape, record, record.panoptic_path)
        return ids

    def check_num_classes(self, num_classes: int) -> None:
        """Raises DataError unless `num_classes` covers every category (the model adds no-object itself)."""
        if num_classes < len(self.categories):
            raise DataError(
                f"num_classes is {num_classes}, but there are {len(self.categories)} categories",
                where=str(self.annotations_json),
                hint=f"set model.sem_seg_head.num_classes: {len(self.categories)}",
            )


def _key(entry: Any, key: str, where: str) -> Any:
    if not isinstance(entry, dict) or key not in entry:
        raise DataError(f"the key '{key}' is missing in {str(entry)[:120]}", where=where)
    return entry[key]


def _check_unique(ids: list[Any], what: str, where: str) -> None:
    if len(set(ids)) < len(ids):
        double, _ = Counter(ids).most_common(1)[0]
        raise DataError(f"{what} id {double} appears twice", where=where)


def _by_id(images: list[Any], where: str) -> dict[int | str, dict[str, Any]]:
    ids = [_key(image, "id", where) for image in images]
    _check_unique(ids, "image", where)
    return dict(zip(ids, images, strict=True))


def _image_of(annotation: Any, images: dict[int | str, dict[str, Any]], where: str) -> dict[str, Any]:
    image_id = _key(annotation, "image_id", where)
    if image_id not in images:
        raise DataError(f"the annotation of image {image_id} has no entry in 'images'", where=where)
    return images[image_id]


def _image_paths(images: list[dict[str, Any]], images_dir: Path | None, where: str) -> list[Path]:
    if all(image.get("img_path") for image in images):
        paths = [Path(image["img_path"]) for image in images]
        _check_present([path for path in paths if not path.is_file()], "image", where)
        return paths
    if images_dir is None:
        raise DataError("no image folder is given, and not every image has an img_path", where=where)
    return _located([image.get("img_path") or _key(image, "file_name", where) for image in images], images_dir, "image")


def _located(names: Sequence[str], folder: Path, what: str) -> list[Path]:
    """The paths of `names` in `folder`, all present. One directory listing is cheaper than a stat for every file."""
    if not folder.is_dir():
        raise DataError(f"the {what} folder does not exist", where=str(folder))
    entries = list(os.scandir(folder))
    if len(entries) == 1 and entries[0].is_dir() and Path(names[0]).parts[0] != entries[0].name:
        logger.info("%s holds nothing but the folder %s: reading that", folder, entries[0].name)
        return _located(names, Path(entries[0].path), what)
    listed = {entry.name for entry in entries}
    paths = [folder / name for name in names]
    missing = [p for p, name in zip(paths, names, strict=True) if name not in listed and not p.is_file()]
    _check_present(missing, what, str(folder))
    return paths


def _check_present(missing: list[Path], what: str, where: str) -> None:
    if missing:
        count = "" if len(missing) == 1 else f" and {len(missing) - 1} more"
        raise DataError(
            f"the annotations list the {what} {missing[0].name}{count}, but there is no such file",
            where=where,
            hint="check that the folder belongs to these annotations and is unpacked completely",
        )


def _record(
    annotation: dict[str, Any],
    image: dict[str, Any],
    image_path: Path,
    panoptic_path: Path,
    categories: Categories,
    where: str,
) -> Record:
    place = f"{where}: image {image['id']}"
    height, width = (image.get("height"), image.get("width"))
    if height is None or width is None:
        height, width = image_size(image_path)
    if not (type(height) is int and type(width) is int and height > 0 and width > 0):
        raise DataError(f"height {height!r} and width {width!r} must be positive integers", where=place)
    segments = []
    for info in _key(annotation, "segments_info", place):
        raw = _key(info, "category_id", place)
        if raw not in categories.index_of:
            raise DataError(f"category_id {raw} of segment {info.get('id')} is not among the categories", where=place)
        segments.append(Segment(_key(info, "id", place), categories.index_of[raw], bool(_key(info, "iscrowd", place))))
    ids = [segment.id for segment in segments]
    _check_unique(ids, "segment", place)
    if any(type(i) is not int or not 0 < i < 1 << 24 for i in ids):
        raise DataError("segment ids must be integers from 1 to 16777215 (0 is void)", where=place)
    return Record(image["id"], image_path, panoptic_path, height, width, tuple(segments))


def _check_size(size: tuple[int, ...], record: Record, path: Path) -> None:
    if size != (record.height, record.width):
        raise DataError(
            f"the size is {size[0]}x{size[1]} (height x width), the annotations say {record.height}x{record.width}",
            where=str(path),
            hint="images are turned upright by their EXIF orientation, panoptic PNGs are not",
        )
