"""Lists of classes as tools write them: names by their numbers in masks, or by their colours.

Read are a label map (JSON list with id, name, isthing, color), JSON objects of names or colours, tables with commas or
blanks (`name,r,g,b`, `64 128 64 Animal`, `name:r,g,b::` of CVAT, `Pixel Value, Class` of Roboflow, `0: name`), and
names alone, one a line, whose number is that of the line.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneformer_jax.errors import DataError
from oneformer_jax.stored import read_json

NAMES = (
    *("label_map.json", "classes.json", "labels.json", "class_names.json", "class_dict.csv", "_classes.csv"),
    *("classes.csv", "labelmap.txt", "label_colors.txt", "classes.txt", "labels.txt", "class_names.txt", "names.txt"),
)
"""Files that are taken for a list of classes, the first of them where there are several."""

VOID_NAMES = frozenset(
    {"void", "ignore", "ignored", "unlabeled", "unlabelled", "__ignore__", "_ignore_", "ignore label"}
)
_COLOR = re.compile(r"(\d{1,3})[ ,;\t]+(\d{1,3})[ ,;\t]+(\d{1,3})")
_HINT = "one class a line: `name`, `3: name`, `name,r,g,b` or `r g b name`; or JSON as of docs/data-formats.md"


@dataclass(frozen=True)
class TableEntry:
    """A class: its number in masks, None where only its colour is given, and what else is known of it."""

    name: str
    id: int | None = None
    color: tuple[int, int, int] | None = None
    isthing: bool | None = None


@dataclass(frozen=True)
class ClassTable:
    """The classes of a file, in its order, without those that it calls void; `void` are those."""

    path: Path
    entries: tuple[TableEntry, ...]
    void: tuple[TableEntry, ...] = ()

    @property
    def has_colors(self) -> bool:
        """Whether every class has a colour."""
        return all(entry.color is not None for entry in self.entries)


def find_table(folders: Iterable[Path]) -> Path | None:
    """The first file in the folders that by its name lists classes."""
    return next((folder / name for folder in folders for name in NAMES if (folder / name).is_file()), None)


def read_table(path: Path) -> ClassTable:
    """Raises DataError: unreadable, empty, or two classes of one number, colour or name."""
    entries = _of_json(read_json(path), path) if path.suffix.lower() == ".json" else list(_of_text(path))
    if not entries:
        raise DataError("the file lists no class", where=str(path), hint=_HINT)
    if all(entry.id is None and entry.color is None for entry in entries):
        entries = [TableEntry(entry.name, number) for number, entry in enumerate(entries)]
    for what in ("id", "color", "name"):
        values = [getattr(entry, what) for entry in entries if getattr(entry, what) is not None]
        if double := [value for value in values if values.count(value) > 1]:
            names = ", ".join(repr(entry.name) for entry in entries if getattr(entry, what) == double[0])
            hint = "give each its own"
            raise DataError(f"{names} have the same {what}, {double[0]}", where=str(path), hint=hint)
    void = tuple(entry for entry in entries if entry.name.strip().casefold() in VOID_NAMES)
    return ClassTable(path, tuple(entry for entry in entries if entry not in void), void)


def _of_text(path: Path) -> Iterable[TableEntry]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path), hint="check --classes") from error
    except UnicodeDecodeError as error:
        raise DataError(f"cannot be read: {error}", where=str(path), hint="write it as UTF-8") from error
    for number, line in enumerate(map(str.strip, lines)):
        if not line or line.startswith("#"):
            continue
        color = _COLOR.search(line)
        rest = (line[: color.start()] + " " + line[color.end() :]) if color else line
        numbered = re.match(r"(\d+)\s*[:,;\t ]\s*(.*\D.*)", rest.strip(" ,;:\t"))
        name = (numbered[2] if numbered else rest).strip(" ,;:\t\"'")
        if number == 0 and not color and not numbered and _is_heading(name):
            continue
        if not name:
            raise DataError(f"line {number + 1} names no class: {line[:80]!r}", where=str(path), hint=_HINT)
        rgb = tuple(map(int, color.groups())) if color else None
        if rgb is not None and max(rgb) > 255:
            raise DataError(f"line {number + 1}: a colour has values up to 255, found {rgb}", where=str(path))
        yield TableEntry(name, int(numbered[1]) if numbered else None, rgb)  # type: ignore[arg-type]


def _is_heading(name: str) -> bool:
    words = {word.strip().casefold() for word in re.split(r"[,;\t]", name)}
    return len(words) > 1 and not words.isdisjoint({"name", "class", "r", "red", "pixel value", "label"})


def _of_json(content: Any, path: Path) -> list[TableEntry]:
    if isinstance(content, dict):
        content = next((content[key] for key in ("classes", "categories", "labels") if key in content), content)
    if isinstance(content, dict):
        pairs = [(str(key), value) for key, value in content.items()]
        found = [_of_pair(key, value, path) for key, value in pairs]
    elif isinstance(content, list):
        found = [_of_value(value, path) for value in content]
    else:
        raise DataError("a list or an object of classes was expected", where=str(path), hint=_HINT)
    return found


def _of_pair(key: str, value: Any, path: Path) -> TableEntry:
    if isinstance(value, list) and (color := _color(value)):
        return TableEntry(key, None, color)
    if isinstance(value, str):
        return TableEntry(value, _number(key, path))
    if type(value) is int:
        return TableEntry(key, value)
    raise DataError(f"{key!r} is neither a number with a name nor a name with a colour", where=str(path), hint=_HINT)


def _of_value(value: Any, path: Path) -> TableEntry:
    if isinstance(value, str):
        return TableEntry(value)
    name = value.get("name", value.get("label")) if isinstance(value, dict) else None
    if not isinstance(name, str | int | float):
        raise DataError("a class has no name", where=str(path), hint=_HINT)
    number = value.get("id")
    thing = value.get("isthing")
    return TableEntry(
        str(name),
        number if type(number) is int else None,
        _color(value.get("color")),
        bool(thing) if thing in (0, 1) else None,
    )


def _color(value: Any) -> tuple[int, int, int] | None:
    match value:
        case [int(red), int(green), int(blue)] if all(0 <= part <= 255 for part in (red, green, blue)):
            return red, green, blue
    return None


def _number(text: str, path: Path) -> int:
    if not text.isdecimal():
        raise DataError(f"{text!r} is no number of a class", where=str(path), hint=_HINT)
    return int(text)
