"""One COCO annotation file, parsed: its format, and what the panoptic and the instance format share."""

import logging
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oneformer_jax.data.datasets import Format, OnBad
from oneformer_jax.data.datasets.categories import Categories, short
from oneformer_jax.data.datasets.coco_cleaning import clean
from oneformer_jax.data.datasets.dataset import Problems
from oneformer_jax.data.datasets.images import image_size
from oneformer_jax.data.storage.folders import Spellings, innermost
from oneformer_jax.errors import DataError
from oneformer_jax.stored import read_json

logger = logging.getLogger(__name__)

_MAX_PIXELS = 1 << 28
LISTS = ("images", "annotations", "categories")
CLEANED = "`inspect data --fix FOLDER` writes a copy of the data without what cannot be used"


@dataclass(frozen=True)
class CocoFile:
    """The three lists of an annotation file, cleaned, of which the `notes` say, and the `rest` of it. `format` is
    recognised from the annotations: panoptic ones carry `segments_info`, instances `segmentation`.

    Readers refuse what is wrong, or, where there is a list `left_out`, add it to that and go on without it.
    """

    path: Path
    format: Format
    images: list[Any]
    annotations: list[Any]
    categories: list[Any]
    notes: tuple[DataError, ...] = ()
    left_out: list[DataError] | None = None
    rest: Mapping[str, Any] = field(default_factory=dict)

    def problems(self) -> Problems:
        """What a reader collects problems in."""
        return Problems(left_out=self.left_out)

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

    def images_by_id(self, problems: Problems) -> dict[int | str, dict[str, Any]]:
        """Image id -> image entry, in file order."""
        images: dict[int | str, dict[str, Any]] = {}
        for image in self.images:
            with problems.collected():
                image_id = _image_id(image, "id", self.where)
                refuse_second(image_id, images, "image", self.where)
                images[image_id] = image
        return images

    def image_of(self, annotation: Any, images: dict[int | str, dict[str, Any]]) -> dict[str, Any]:
        """The image that an annotation belongs to."""
        image_id = _image_id(annotation, "image_id", self.where)
        if image_id not in images:
            what = f"the annotation of image {image_id} has no entry in 'images'"
            raise DataError(what, where=self.where, hint=CLEANED)
        return images[image_id]

    def located(
        self, entries: Sequence[dict[str, Any]], find: Callable[[Sequence[dict[str, Any]]], list[Path]]
    ) -> list[Path | None]:
        """The files that `find` gives for entries; None for one that it refuses, where that is left out."""
        if not entries:
            return []
        if self.left_out is None:
            return list(find(entries))
        problems = self.problems()
        with problems.collected():
            return list(find(entries))
        if len(entries) == 1:
            problems.raise_all()
            return [None]
        middle = len(entries) // 2
        return self.located(entries[:middle], find) + self.located(entries[middle:], find)

    def image_paths(self, images: Sequence[dict[str, Any]], images_dir: Path | None) -> list[Path]:
        """The files of images, all present: `img_path` where an image has one, else `file_name` in the folder."""
        if all(image.get("img_path") for image in images):
            return _present([text(image, "img_path", self.where) for image in images], Path(), "image")
        if images_dir is None:
            raise DataError("no image folder is given, and not every image has an img_path", where=self.where)
        names = [text(image, "img_path" if image.get("img_path") else "file_name", self.where) for image in images]
        return located(names, images_dir, "image")


def read_coco(path: Path, *, on_bad: OnBad = "drop", left_out: list[DataError] | None = None) -> CocoFile:
    """Raises DataError: unreadable, no COCO file, without annotations, of neither or both formats, or, as `on_bad` may
    say, with annotations from which nothing can be learned."""
    content, where = read_json(path), str(path)
    for key in LISTS:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"there is no list '{key}': this is not COCO JSON", where=where)
    formats, sound, problems = list[Format](), [], Problems(left_out=left_out)
    for number, annotation in enumerate(content["annotations"]):
        with problems.collected():
            formats.append(_format(annotation, number, where))
            sound.append(annotation)
    problems.raise_all()
    if not formats:
        raise DataError("the data set is empty: there are no annotations", where=where)
    if len(set(formats)) > 1:
        other = next(number for number, name in enumerate(formats) if name != formats[0])
        raise DataError(
            f"annotation 0 is {_WORDS[formats[0]]}, annotation {other} {_WORDS[formats[other]]}",
            where=where,
            hint="an annotation file has one format; list several files in dataset.<split>.annotations",
        )
    content["annotations"] = sound
    notes = clean(content, where, on_bad, left_out)
    lists = {name: content.pop(name) for name in LISTS}
    return CocoFile(path, formats[0], **lists, notes=notes, left_out=left_out, rest=content)


_WORDS = {"coco_panoptic": "panoptic (segments_info)", "coco_instances": "an instance (segmentation)"}


def _format(annotation: Any, number: int, where: str) -> Format:
    keys = annotation if isinstance(annotation, dict) else {}
    panoptic, instance = "segments_info" in keys, not {"segmentation", "bbox"}.isdisjoint(keys)
    if panoptic and "segmentation" not in keys:
        return "coco_panoptic"
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
        raise DataError(f"the key '{key}' is missing in {short(entry)}", where=where)
    return entry[key]


def text(entry: Any, key: str, where: str) -> str:
    """`entry[key]`, which must be a text."""
    value = required(entry, key, where)
    if not isinstance(value, str) or not value:
        raise DataError(f"{key} must be a string, not {short(value)}", where=where)
    return value


def crowd(entry: Any, where: str) -> bool:
    """Whether `entry` marks a region of uncounted things."""
    value = required(entry, "iscrowd", where)
    if value not in (0, 1):
        raise DataError(f"iscrowd must be 0 or 1, not {short(value)}", where=where)
    return bool(value)


def class_index(entry: Any, categories: Categories, where: str) -> int:
    """The class index of an entry's `category_id`."""
    raw = required(entry, "category_id", where)
    if type(raw) is not int or raw not in categories.index_of:
        raise DataError(
            f"category_id {short(raw)} of segment {short(entry.get('id'))} is not among the categories",
            where=where,
        )
    return categories.index_of[raw]


def _image_id(entry: Any, key: str, where: str) -> int | str:
    value = required(entry, key, where)
    if type(value) not in (int, str):
        raise DataError(f"the id of an image must be a number or a string, not {short(value)}", where=where)
    return value


def refuse_second(number: int | str, seen: Container[int | str], what: str, where: str) -> None:
    """Raises DataError for an id that was seen before."""
    if number in seen:
        raise DataError(f"{what} id {short(number)} appears twice", where=where, hint=CLEANED)


def stated_size(image: dict[str, Any], path: Path, where: str) -> tuple[int, int]:
    """(height, width) that the annotations state; from the file where they state none."""
    height, width = image.get("height"), image.get("width")
    if height is None or width is None:
        height, width = image_size(path)
    for name, edge in (("height", height), ("width", width)):
        if type(edge) is not int or edge <= 0:
            raise DataError(f"{name} must be a positive integer, not {short(edge)}", where=where)
    if height * width > _MAX_PIXELS:
        raise DataError(
            f"an image of {short(height)} x {short(width)} pixels is larger than what can be read",
            where=where,
            hint="cut it into tiles, or make it smaller",
        )
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
