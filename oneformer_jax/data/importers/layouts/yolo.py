"""YOLO polygons: data.yaml with the names of the classes, and beside each folder `images` one of `labels`.

A line of a text file is a class and the corners of a polygon, as shares of the width and the height of the picture. A
picture without a file, or with an empty one, shows none of the classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.images import image_size, pictures_below
from oneformer_jax.data.importers.class_table import find_table, read_table
from oneformer_jax.data.importers.pairs import SPLITS, without_splits
from oneformer_jax.data.importers.reader import Format, Item, Options, Progress, Reader, Shape, Shapes
from oneformer_jax.errors import DataError

_IMAGES, _LABELS = "images", "labels"
_UNTOLD = "pictures of no split"
_BOX = 4  # numbers after the class


@dataclass
class Yolo(Reader):
    """See `Reader`."""

    items: Sequence[Item]
    categories: Categories
    index_of: dict[int, int]
    guesses: list[str]
    left_out: list[DataError]
    format: str = "yolo"
    regions: bool = False
    has_objects: bool = True

    def read(self, item: Item) -> Shapes:
        height, width = image_size(item.image)
        shapes, notes = list[Shape](), list[DataError]()
        for path in item.labels:
            for number, line in enumerate(_text(path).splitlines(), start=1):
                if words := line.split():
                    try:
                        shapes.append(self._shape(words, width, height))
                    except DataError as error:
                        notes.append(DataError(error.what, where=f"{path}:{number}", hint=error.hint))
        return Shapes((height, width), tuple(shapes), tuple(notes))

    def _shape(self, words: list[str], width: int, height: int) -> Shape:
        try:
            category, *values = (float(word) for word in words)
        except ValueError:
            raise DataError(f"{' '.join(words)[:60]!r} is not a row of numbers") from None
        if category not in self.index_of:
            raise DataError(f"class {words[0]} is not among the names", hint="add it to `names` of data.yaml")
        if len(values) == _BOX:
            raise DataError("a box without a mask", hint="draw polygons: there is nothing to train masks on")
        if len(values) < 6 or len(values) % 2:
            raise DataError(f"a polygon of {len(values)} numbers, expected x and y of three points or more")
        if not all(-1 <= value <= 2 for value in values):
            hint = "they are shares of the width and the height of the picture"
            raise DataError("corners of a polygon lie outside 0 to 1", hint=hint)
        corners = [round(value * (height if odd % 2 else width), 3) for odd, value in enumerate(values)]
        return Shape(self.index_of[int(category)], False, [corners])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path)) from error


def _described(source: Path) -> tuple[Path, dict[str, Any]] | None:
    """The file that describes the data set, and its content."""
    for path in sorted([*source.glob("*.yaml"), *source.glob("*.yml")]):
        try:
            text = _text(path)
            if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
                continue  # a few of them stand for gigabytes, and no tool writes any here
            content = yaml.safe_load(text)
        except (yaml.YAMLError, DataError):
            continue
        if isinstance(content, dict) and "names" in content and SPLITS.keys() & content.keys():
            return path, content
    table = find_table([source])
    if table is not None and any(source.joinpath(_LABELS).rglob("*.txt")) and (source / _IMAGES).is_dir():
        names = [entry.name for entry in read_table(table).entries]  # as Label Studio exports it
        return table, {"names": names, _UNTOLD: _IMAGES}
    return None


def find(source: Path) -> str:
    """Why this seems to be YOLO's layout."""
    found = _described(source)
    return f"{found[0].name} names classes and folders of pictures" if found else ""


def open_yolo(source: Path, options: Options, progress: Progress) -> Yolo:
    """Raises DataError: no description, no class, a place of pictures that is not there."""
    found = _described(source)
    if found is None:
        hint = "it has names, and train and val with folders of pictures"
        raise DataError("there is no data.yaml", where=str(source), hint=hint)
    path, content = found
    names = content["names"]
    pairs = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(pairs, dict) or not pairs or not all(type(key) is int for key in pairs):
        raise DataError("names must be a list, or names by whole numbers", where=str(path))
    if double := [name for name in pairs.values() if list(pairs.values()).count(name) > 1]:
        raise DataError(f"two classes are named {double[0]!r}", where=str(path), hint="give each its own name")
    entries = [{"id": number, "name": str(pairs[number]), "isthing": 1} for number in sorted(pairs)]
    index_of = {number: index for index, number in enumerate(sorted(pairs))}
    items, left_out = list[Item](), list[DataError]()
    for key, split in {**SPLITS, _UNTOLD: ""}.items():
        for image in _pictures(source, path, content, key):
            labels = _labels_of(image)
            items.append(Item(_name(image), image, (labels,) if labels.is_file() else (), split))
            progress(len(items))
    guesses = list[str]()
    items = _alone(_in_one_split(items, guesses), left_out)
    if not items:
        raise DataError("there are no pictures where the file says", where=str(path))
    return Yolo(items, Categories.from_json(entries), index_of, guesses, left_out)


def _pictures(source: Path, path: Path, content: dict[str, Any], key: str) -> Iterator[Path]:
    """The pictures of a split: a folder, a list of files, or several of either."""
    given = content.get(key) or []
    root = Path(str(content.get("path") or ""))
    for place in [given] if isinstance(given, str) else given:
        inner = PurePath(str(place))
        below = PurePath(*(part for part in inner.parts if part not in ("..", ".", "/")))
        # Roboflow writes ../train/images for a folder beside the file.
        roots = (root if root.is_absolute() else source / root, source, source.parent / root)
        tried = [base / name for base in roots for name in (inner, below)]
        folder = next((candidate for candidate in tried if candidate.exists()), None)
        if folder is None:
            if key == "test":  # which files often name and archives do not hold
                continue
            raise DataError(f"{key}: there is no {place}", where=str(path), hint=f"expected it at {tried[0]}")
        if folder.is_file():
            lines = [line.strip() for line in _text(folder).splitlines() if line.strip()]
            yield from (
                next((b / line for b in (folder.parent, *roots) if (b / line).is_file()), folder.parent / line)
                for line in lines
            )
        else:
            yield from (folder / name for name in pictures_below(folder))


def _labels_of(image: Path) -> Path:
    """The file of labels: in the folder `labels` in place of the last `images` of the path, else beside the picture."""
    parts = list(image.parts)
    for position in reversed(range(len(parts) - 1)):
        if parts[position] == _IMAGES:
            parts[position] = _LABELS
            break
    return Path(*parts).with_suffix(".txt")


def _name(image: Path) -> str:
    """The path below the last folder `images`, without words for a split and a suffix."""
    parts = image.with_suffix("").parts
    last = max((position for position, part in enumerate(parts[:-1]) if part == _IMAGES), default=len(parts) - 2)
    return without_splits(PurePath(*parts[last + 1 :]))


def _in_one_split(items: list[Item], guesses: list[str]) -> list[Item]:
    """No picture both trains and validates: one that should is of no split."""
    train, val = ({item.image for item in items if item.split == split} for split in ("train", "val"))
    if both := train & val:
        guesses.append(f"{len(both)} pictures are in train and in val: they validate only where they are chosen anew.")
    once = (item for item in items if item.split != "val" or item.image not in both)
    return [item._replace(split="") if item.image in both else item for item in once]


def _alone(items: list[Item], left_out: list[DataError]) -> list[Item]:
    """The items without those that share labels with another picture, and without files that are not there."""
    kept = dict[tuple[str, str], Item]()
    double = set[tuple[str, str]]()
    for item in items:
        key = (item.split, item.name)
        if key in kept:
            double.add(key)
            names = f"{kept[key].image}, {item.image}"
            left_out.append(DataError("several pictures have the same name but for the suffix", where=names))
        kept[key] = item
    return [item for key, item in kept.items() if key not in double]


FORMAT = Format("yolo", "YOLO polygons: data.yaml, images and labels", find, open_yolo)
