"""Mapillary Vistas 1.2 and 2.0: `config_vVERSION.json`, `training/images` and `training/vVERSION/instances`.

A number is 256 times the class, the position in the file's list of labels, plus the number of the object. Labels that
the file does not evaluate are no classes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.images import pictures_below
from oneformer_jax.data.importers.layouts.coded_masks import Code, CodedMasks
from oneformer_jax.data.importers.reader import Format, Item, Options, Progress
from oneformer_jax.errors import DataError
from oneformer_jax.stored import read_json

_SPLITS = {"training": "train", "validation": "val"}
_OBJECTS = 256


def _versions(source: Path) -> Iterator[tuple[Path, str]]:
    """The files of labels with the folder that belongs to each, the newest first."""
    for path in sorted(source.glob("config*.json"), reverse=True):
        version = path.stem.removeprefix("config").removeprefix("_")
        if any((source / split / version / "instances").is_dir() for split in _SPLITS):
            yield path, version


def find(source: Path) -> str:
    """Why this seems to be Mapillary Vistas."""
    found = next(_versions(source), None)
    return f"{found[0].name} and the folders of its labels are there" if found else ""


def open_vistas(source: Path, options: Options, progress: Progress) -> CodedMasks:
    """Reads the labels of the newest version, unless `options.labels` names another. Raises DataError."""
    found = [(path, version) for path, version in _versions(source) if options.labels in ("", version)]
    if not found:
        hint = "config_v2.0.json, training/images and training/v2.0/instances"
        raise DataError("there is no Mapillary Vistas", where=str(source), hint=hint)
    path, version = found[0]
    labels = _labels(path)
    kept = [(number, label) for number, label in enumerate(labels) if label.get("evaluate", True)]
    entries = [
        {
            "id": number,
            "name": str(label.get("readable") or label.get("name")),
            "isthing": int(bool(label.get("instances"))),
            "color": label.get("color"),
        }
        for number, label in kept
    ]
    categories = Categories.from_json(entries, where=str(path))

    def decode(number: int) -> Code | None:
        category = number // _OBJECTS
        index = categories.index_of.get(category, -1)
        if index < 0:
            return (-1, False) if category < len(labels) else None
        return index, bool(categories.is_thing[index])

    items, left_out = list[Item](), list[DataError]()
    for folder, split in _SPLITS.items():
        for picture in pictures_below(source / folder / "images"):
            progress(len(items))
            label = source / folder / version / "instances" / picture.with_suffix(".png")
            if label.is_file():
                name = picture.with_suffix("").as_posix()
                items.append(Item(name, source / folder / "images" / picture, (label,), split))
            else:
                where = str(source / folder / "images" / picture)
                left_out.append(DataError(f"the picture has no mask in {version}/instances", where=where))
    if not items:
        raise DataError("no picture has labels", where=str(source))
    guesses = []
    if len(list(_versions(source))) > 1 and not options.labels:
        guesses.append(f"Several versions are there: {path.name} counts; --labels v1.2 names another.")
    return CodedMasks("vistas", items, categories, decode, guesses, left_out)


def _labels(path: Path) -> list[dict[str, Any]]:
    content = read_json(path)
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, list) or not labels or not all(isinstance(label, dict) for label in labels):
        raise DataError("there is no list 'labels' of objects", where=str(path))
    return labels


FORMAT = Format("vistas", "Mapillary Vistas 1.2 or 2.0", find, open_vistas, frozenset({"labels"}))
