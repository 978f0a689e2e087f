"""COCO as tools export it (CVAT, Label Studio, Roboflow, Supervisely, COCO itself), panoptic or instances.

Pictures are found wherever they lie below the source; what is not as the format says is read as it is meant, or left
out and told (`datasets.coco_cleaning`).
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

import numpy as np

from oneformer_jax.data.datasets.categories import Categories, check_agreement
from oneformer_jax.data.datasets.coco_file import CocoFile, class_index, crowd, read_coco, required, stated_size
from oneformer_jax.data.datasets.dataset import Problems, Segment
from oneformer_jax.data.datasets.images import pictures_below, read_panoptic
from oneformer_jax.data.importers.pairs import SPLITS, without_splits
from oneformer_jax.data.importers.reader import Format, Item, Options, Progress, Reader, Regions, Shape, Shapes
from oneformer_jax.data.storage.folders import files_below
from oneformer_jax.errors import DataError

_JSON = frozenset({".json"})
_LISTS = (b'"images"', b'"annotations"', b'"categories"')
_INSTANCES = "instances"


@dataclass
class Coco(Reader):
    """See `Reader`. `entries`: what files say of each picture, and its annotations."""

    items: Sequence[Item]
    categories: Categories
    entries: Mapping[Path, tuple[dict[str, Any], list[dict[str, Any]]]]
    guesses: list[str]
    left_out: list[DataError]
    regions: bool
    format: str = "coco"
    has_objects: bool = True

    def read(self, item: Item) -> Regions | Shapes:
        image, annotations = self.entries[item.image]
        if not self.regions:
            return self._shapes(item, image, annotations)
        where = str(item.labels[0])
        infos = annotations[0]["segments_info"]
        ids, inverse = np.unique(read_panoptic(item.labels[0]), return_inverse=True)
        numbers = {int(number): position for position, number in enumerate(ids)}
        segments, notes = list[Segment](), list[DataError]()
        for info in infos:
            try:
                number = required(info, "id", where)
                category, iscrowd = class_index(info, self.categories, where), crowd(info, where)
            except DataError as error:
                notes.append(error)
                continue
            if numbers.get(number):
                segments.append(Segment(numbers[number] + 1, category, iscrowd))
        values = np.zeros(len(ids), np.int32)
        for segment in segments:
            values[segment.id - 1] = segment.id
        if unlisted := len(ids) - len(segments) - (0 in numbers):
            notes.append(DataError(f"{unlisted} segments of the PNG are not listed: read as no class", where=where))
        return Regions(values[inverse].reshape(inverse.shape), tuple(segments), tuple(notes))

    def _shapes(self, item: Item, image: dict[str, Any], annotations: list[dict[str, Any]]) -> Shapes:
        size, shapes, notes = stated_size(image, item.image, str(item.image)), list[Shape](), list[DataError]()
        for entry in annotations:
            where = f"{item.labels[0]}: annotation {entry.get('id')}"
            try:
                index, iscrowd = class_index(entry, self.categories, where), crowd(entry, where)
                shapes.append(Shape(index, iscrowd, entry["segmentation"]))
            except DataError as error:
                notes.append(error)
        return Shapes(size, tuple(shapes), tuple(notes))


def find(source: Path) -> str:
    """Why these seem to be COCO's files."""
    found = _annotation_files(source)
    return f"{found[0].relative_to(source)} has images, annotations and categories" if found else ""


def _annotation_files(source: Path) -> list[Path]:
    """The JSON files that have COCO's three lists; of a folder with `instances_*.json` no other instances."""
    found = [source / name for name in files_below(source, _JSON) if _has_lists(source / name)]
    beside = {path.parent for path in found if path.name.startswith(_INSTANCES)}
    return [path for path in found if path.parent not in beside or path.name.startswith((_INSTANCES, "panoptic"))]


def _has_lists(path: Path) -> bool:
    if not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as text:
        return all(text.find(key) >= 0 for key in _LISTS)


def open_coco(source: Path, options: Options, progress: Progress) -> Coco:
    """Reads all files of the richer kind, panoptic before instances. Raises DataError: there are none, or they differ
    in their classes."""
    left_out, guesses, files = list[DataError](), list[str](), list[CocoFile]()
    for done, path in enumerate(_annotation_files(source), start=1):
        progress(done)
        dropped: list[DataError] = []
        try:
            files.append(read_coco(path, left_out=dropped))
        except DataError as error:
            left_out.append(error)
        left_out += dropped
    kinds = {file.format for file in files}
    if not files:
        raise left_out[0] if left_out else DataError("there is no COCO file", where=str(source))
    kind = "coco_panoptic" if "coco_panoptic" in kinds else "coco_instances"
    if len(kinds) > 1:
        guesses.append("There are panoptic and instance files: the panoptic ones count.")
        files = [file for file in files if file.format == kind]
    categories = files[0].parse_categories(contiguous_id=True)
    for file in files[1:]:
        other = file.parse_categories(contiguous_id=True)
        check_agreement((categories, files[0].where), (other, "this file"), "ids", where=file.where)
    for file in files:
        guesses += [f"{note.where}: {note.what}." for note in file.notes]
    categories = _without_parents(categories, files, guesses)
    place = _Place(source)
    for file in files:
        place.take(file)
    if not place.items:
        raise (left_out + place.left_out)[0]
    left_out += place.left_out
    return Coco(place.items, categories, place.entries, guesses, left_out, regions=kind == "coco_panoptic")


class _Place:
    """The files below a source, and the pictures that annotation files name."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.items: list[Item] = []
        self.entries: dict[Path, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
        self.left_out: list[DataError] = []
        self._pictures = defaultdict[str, list[Path]](list)
        self._pngs = defaultdict[str, list[Path]](list)
        for path in pictures_below(source):
            (self._pngs if _is_panoptic(path) else self._pictures)[path.name].append(source / path)

    def take(self, file: CocoFile) -> None:
        """Takes in the pictures of an annotation file."""
        problems = Problems()
        images = file.images_by_id(problems)
        of_image = defaultdict[int | str, list[dict[str, Any]]](list)
        for entry in file.annotations:
            with problems.collected():
                of_image[file.image_of(entry, images)["id"]].append(entry)
        for number, image in images.items():
            annotations = of_image[number]
            # An image without annotations shows none of the classes, or is no part of panoptic data.
            if annotations or file.format == "coco_instances":
                with problems.collected():
                    self._take(file, image, annotations)
        self.left_out += problems.errors

    def _take(self, file: CocoFile, image: dict[str, Any], annotations: list[dict[str, Any]]) -> None:
        name = str(image.get("img_path") or image.get("file_name") or "")
        picture = _nearest(self._pictures, name, file.path)
        if picture is None:
            raise DataError(f"there is no picture {name!r}", where=file.where)
        if picture in self.entries:
            raise DataError(f"the picture {str(picture)!r} is listed twice", where=file.where)
        labels = file.path
        if file.format == "coco_panoptic":
            png = _nearest(self._pngs, str(annotations[0].get("file_name")), file.path)
            if png is None:
                raise DataError(f"there is no panoptic PNG of {name!r}", where=file.where)
            labels = png
        self.entries[picture] = image, annotations
        split = (_split_words(Path("/", file.path.relative_to(self.source))) or [""])[-1]
        self.items.append(Item(_item_name(self.source, picture), picture, (labels,), split))


def _without_parents(categories: Categories, files: Sequence[CocoFile], guesses: list[str]) -> Categories:
    """Without the class that Roboflow adds for its groups: the supercategory of others, which no annotation has."""
    entries = [entry for file in files for entry in file.annotations if isinstance(entry, dict)]
    lists = [found for entry in entries if isinstance(found := entry.get("segments_info"), list)]
    infos = [info for found in lists for info in found if isinstance(info, dict)]
    used = {number for entry in (*entries, *infos) if type(number := entry.get("category_id")) is int}
    parents = {str(entry.get("supercategory")) for entry in files[0].categories}
    kept = [item for item in categories.items if item.id in used or item.name not in parents]
    if 0 < len(kept) < len(categories):
        dropped = ", ".join(repr(item.name) for item in categories.items if item not in kept)
        guesses.append(f"{dropped} is left out of the classes: it names a group of them, and nothing has it.")
        return Categories(tuple(kept))
    return categories


def _nearest(files: Mapping[str, list[Path]], name: str, annotations: Path) -> Path | None:
    """The file that an annotation file names, perhaps as on another machine: of those with the name the one that shares
    the most of the path, then the one nearest to the annotation file; None where there is none, or no nearest."""
    parts = PureWindowsPath(name).parts if "\\" in name else PurePath(name).parts

    def shared(path: Path) -> tuple[int, int]:
        ends = [a == b for a, b in zip(reversed(path.parts), reversed(parts), strict=False)]
        starts = [a == b for a, b in zip(path.parts, annotations.parts, strict=False)]
        words = set(_split_words(annotations)) & set(_split_words(path))
        return [*ends, False].index(False), [*starts, False].index(False) + len(words)

    ranked = sorted(files.get(parts[-1], ()) if parts else (), key=shared, reverse=True)
    if len(ranked) > 1 and shared(ranked[0]) == shared(ranked[1]):
        return None
    return ranked[0] if ranked else None


def _is_panoptic(path: PurePath) -> bool:
    return any("panoptic" in part for part in path.parts[:-1]) and path.suffix == ".png"


def _split_words(path: Path) -> list[str]:
    """The splits that words of a path name."""
    words = re.split(r"[\W_\d]+", "/".join((*path.parts[-3:-1], path.stem)).casefold())
    return [SPLITS[word] for word in words if word in SPLITS]


def _item_name(source: Path, path: Path) -> str:
    inner = path.relative_to(source).with_suffix("")
    folders = (part for part in inner.parts[:-1] if part.casefold() != "images")
    return without_splits(PurePath(*folders, inner.name))


FORMAT = Format("coco", "COCO panoptic or instances, as any tool exports it", find, open_coco)
