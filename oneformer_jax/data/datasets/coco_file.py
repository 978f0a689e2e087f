"""One COCO annotation file, parsed: its format, and what the panoptic and the instance format share."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneformer_jax.data.datasets import Format
from oneformer_jax.data.datasets.categories import Categories, read_json
from oneformer_jax.data.datasets.dataset import Problems
from oneformer_jax.data.datasets.images import image_size
from oneformer_jax.data.storage.folders import Spellings, innermost
from oneformer_jax.errors import DataError

logger = logging.getLogger(__name__)

_MAX_PIXELS = 1 << 31


@dataclass(frozen=True)
class CocoFile:
    """The three lists of an annotation file. `format` is recognised from the annotations: panoptic ones carry
    `segments_info`, instances `segmentation`."""

    path: Path
    format: Format
    images: list[Any]
    annotations: list[Any]
    categories: list[Any]

    @property
    def where(self) -> str:
        return str(self.path)

    def parse_categories(self, *, contiguous_id: bool) -> Categories:
        """The categories; `isthing` decides the targets of a panoptic file, where it must be given."""
        return Categories.from_json(
            self.categories,
            where=self.where,
            contiguous_id=contiguous_id,
            isthing_required=self.format == "coco_panoptic",
        )

    def images_by_id(self) -> dict[int | str, dict[str, Any]]:
        """Image id -> image entry, in file order."""
        ids = [_image_id(image, "id", self.where) for image in self.images]
        check_unique(ids, "image", self.where)
        return dict(zip(ids, self.images, strict=True))

    def image_of(self, annotation: Any, images: dict[int | str, dict[str, Any]]) -> dict[str, Any]:
        """The image that an annotation belongs to."""
        image_id = _image_id(annotation, "image_id", self.where)
        if image_id not in images:
            raise DataError(f"the annotation of image {image_id} has no entry in 'images'", where=self.where)
        return images[image_id]

    def image_paths(self, images: Sequence[dict[str, Any]], images_dir: Path | None) -> list[Path]:
        """The files of images, all present: `img_path` where an image has one, else `file_name` in the folder."""
        if all(image.get("img_path") for image in images):
            return _present([text(image, "img_path", self.where) for image in images], Path(), "image")
        if images_dir is None:
            raise DataError("no image folder is given, and not every image has an img_path", where=self.where)
        names = [text(image, "img_path" if image.get("img_path") else "file_name", self.where) for image in images]
        return located(names, images_dir, "image")


def read_coco(path: Path) -> CocoFile:
    """Raises DataError: unreadable, no COCO file, without annotations, or of neither or both formats."""
    content, where = read_json(path), str(path)
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"there is no list '{key}': this is not COCO JSON", where=where)
    if not content["annotations"]:
        raise DataError("the data set is empty: there are no annotations", where=where)
    formats = [_format(annotation, number, where) for number, annotation in enumerate(content["annotations"])]
    if len(set(formats)) > 1:
        other = next(number for number, name in enumerate(formats) if name != formats[0])
        raise DataError(
            f"annotation 0 is {_WORDS[formats[0]]}, annotation {other} {_WORDS[formats[other]]}",
            where=where,
            hint="an annotation file has one format; list several files in dataset.<split>.annotations",
        )
    return CocoFile(path, formats[0], content["images"], content["annotations"], content["categories"])


_WORDS = {"coco_panoptic": "panoptic (segments_info)", "coco_instances": "an instance (segmentation)"}


def _format(annotation: Any, number: int, where: str) -> Format:
    keys = annotation if isinstance(annotation, dict) else {}
    panoptic, instance = "segments_info" in keys, "segmentation" in keys
    if panoptic == instance:
        both, between = ("both", "and") if panoptic else ("neither", "nor")
        raise DataError(
            f"annotation {number} has {both} 'segments_info' (panoptic) {between} 'segmentation' (instances)",
            where=where,
            hint="the format must be COCO panoptic or COCO instances",
        )
    return "coco_panoptic" if panoptic else "coco_instances"


def required(entry: Any, key: str, where: str) -> Any:
    """`entry[key]`. Raises DataError: no object, or without that key."""
    if not isinstance(entry, dict) or key not in entry:
        raise DataError(f"the key '{key}' is missing in {str(entry)[:120]}", where=where)
    return entry[key]


def text(entry: Any, key: str, where: str) -> str:
    """`entry[key]`, which must be a text."""
    value = required(entry, key, where)
    if not isinstance(value, str) or not value:
        raise DataError(f"{key} must be a string, not {str(value)[:120]!r}", where=where)
    return value


def crowd(entry: Any, where: str) -> bool:
    """Whether `entry` marks a region of uncounted things."""
    value = required(entry, "iscrowd", where)
    if value not in (0, 1):
        raise DataError(f"iscrowd must be 0 or 1, not {str(value)[:120]!r}", where=where)
    return bool(value)


def class_index(entry: Any, categories: Categories, where: str) -> int:
    """The class index of an entry's `category_id`."""
    raw = required(entry, "category_id", where)
    if type(raw) is not int or raw not in categories.index_of:
        raise DataError(
            f"category_id {str(raw)[:120]} of segment {str(entry.get('id'))[:120]} is not among the categories",
            where=where,
        )
    return categories.index_of[raw]


def _image_id(entry: Any, key: str, where: str) -> int | str:
    value = required(entry, key, where)
    if type(value) not in (int, str):
        raise DataError(f"the id of an image must be a number or a string, not {str(value)[:120]}", where=where)
    return value


def check_unique(ids: Sequence[int | str], what: str, where: str) -> None:
    """Raises DataError naming the ids that appear more than once."""
    repeated = [value for value, count in Counter(ids).items() if count > 1]
    Problems(DataError(f"{what} id {value} appears twice", where=where) for value in repeated).raise_all()


def stated_size(image: dict[str, Any], path: Path, where: str) -> tuple[int, int]:
    """(height, width) that the annotations state; from the file where they state none."""
    height, width = image.get("height"), image.get("width")
    if height is None or width is None:
        height, width = image_size(path)
    if not (type(height) is int and type(width) is int and height > 0 and width > 0 and height * width < _MAX_PIXELS):
        raise DataError(f"height {height!r} and width {width!r} must be positive integers", where=where)
    return height, width


def located(names: Sequence[str], folder: Path, what: str) -> list[Path]:
    """The paths of `names` in `folder`, all present, as the disk spells them.

    The folder may be one level too high if it holds nothing but another folder.
    """
    if not folder.is_dir():
        raise DataError(f"the {what} folder does not exist", where=str(folder))
    inner = innermost(folder, named=Path(names[0]).parts[:1])
    if inner != folder:
        logger.info("%s contains only the folder %s: reading that folder", folder, inner.relative_to(folder))
    return _present(names, inner, what)


def _present(names: Sequence[str], folder: Path, what: str) -> list[Path]:
    spellings = Spellings()
    found = [spellings.find(folder / name) for name in names]
    hint = "check that the folder belongs to these annotations and is unpacked completely"
    Problems(
        DataError(
            f"the annotations list the {what} {name}, but there is no such file", where=str(folder / name), hint=hint
        )
        for name, path in zip(names, found, strict=True)
        if path is None
    ).raise_all()
    return [path for path in found if path is not None]
