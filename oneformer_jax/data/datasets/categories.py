"""The categories of a data set: class indices, names, things and stuff, colours.

A class index is the position in the category list of the annotations; the label map must agree with it.
"""

import colorsys
import json
import reprlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from oneformer_jax.errors import DataError


@dataclass(frozen=True)
class Category:
    """One class: `id` as the files write it, `isthing` (countable) or stuff, `color` RGB 0..255 for drawings."""

    id: int
    name: str
    isthing: bool
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Categories:
    """All classes in the order of their indices 0..K-1."""

    items: tuple[Category, ...]

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(category.name for category in self.items)

    @cached_property
    def is_thing(self) -> Bool[np.ndarray, " k"]:
        return np.array([category.isthing for category in self.items], dtype=bool)

    def is_thing_of(self, num_classes: int) -> Bool[np.ndarray, " k"]:
        """Of every class that a model gives; outputs beyond the categories are stuff."""
        return np.concatenate([self.is_thing, np.zeros(num_classes - len(self), bool)])

    @cached_property
    def colors(self) -> UInt8[np.ndarray, "k 3"]:
        return np.array([category.color for category in self.items], dtype=np.uint8).reshape(-1, 3)

    @cached_property
    def index_of(self) -> dict[int, int]:
        """Raw category id -> class index."""
        return {category.id: index for index, category in enumerate(self.items)}

    def to_json(self) -> list[dict[str, Any]]:
        """A label map: a list of objects with id, name, isthing (0 or 1) and color."""
        return [{"id": c.id, "name": c.name, "isthing": int(c.isthing), "color": list(c.color)} for c in self.items]

    @classmethod
    def from_json(
        cls, entries: Any, *, where: str = "", contiguous_id: bool = True, isthing_required: bool = False
    ) -> "Categories":
        """Reads a category list.

        Args:
            entries: list of objects `{"id", "name", "isthing", "color"}`; a missing `isthing` means thing, a missing
                `color` is generated from the class index.
            contiguous_id: True: class index = position in the list. False: class index = raw id, so ids are 0..K-1.
            isthing_required: refuse entries without `isthing` (annotation files, where it decides the targets).

        Raises:
            DataError: no list, no entry, missing or invalid keys, duplicate ids, ids that `contiguous_id` excludes.
        """
        if not isinstance(entries, list):
            raise DataError("the categories must be a JSON array of objects", where=where)
        if not entries:
            raise DataError("the list of categories is empty", where=where)
        items = tuple(_parse(entry, index, where, isthing_required) for index, entry in enumerate(entries))
        seen: set[int] = set()
        for category in items:
            if category.id in seen:
                raise DataError(f"category id {category.id} appears twice", where=where)
            seen.add(category.id)
        if not contiguous_id:
            if seen != set(range(len(items))):
                raise DataError(
                    f"with contiguous_id: false the category ids must be 0..{len(items) - 1}, "
                    f"but they run from {min(seen)} to {max(seen)}",
                    where=where,
                    hint="set dataset.contiguous_id: true, which numbers classes by their position in the list",
                )
            items = tuple(sorted(items, key=lambda category: category.id))
        return cls(items)


def _parse(entry: Any, index: int, where: str, isthing_required: bool) -> Category:
    place = f"{where}: category {index}" if where else f"category {index}"
    if not isinstance(entry, dict):
        raise DataError("a category must be a JSON object", where=place)
    for key in ("id", "name", *(("isthing",) if isthing_required else ())):
        if key not in entry:
            raise DataError(f"the key '{key}' is missing", where=place)
    if type(entry["id"]) is not int:
        raise DataError(f"id must be an integer, not {short(entry['id'])}", where=place)
    if type(entry["name"]) not in (str, int, float):
        raise DataError(f"name must be a text, not {short(entry['name'])}", where=place)
    if entry.get("isthing", 1) not in (0, 1):
        raise DataError(f"isthing must be 0 or 1, not {short(entry['isthing'])}", where=place)
    color = entry.get("color") or _generated_color(index)
    match color:
        case [int(red), int(green), int(blue)] if all(0 <= value <= 255 for value in (red, green, blue)):
            pass
        case _:
            raise DataError(f"color must be three integers 0..255, not {short(color)}", where=place)
    return Category(entry["id"], str(entry["name"]), bool(entry.get("isthing", 1)), (red, green, blue))


def _generated_color(index: int) -> tuple[int, int, int]:
    # Steps of the golden ratio spread hues evenly however many classes there are.
    hue = (index * 0.6180339887498949) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.15 * (index % 4), 0.95 - 0.15 * (index % 3))
    return round(255 * red), round(255 * green), round(255 * blue)


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises DataError: missing or invalid; NaN and Infinity are no JSON."""
    try:
        return json.loads(path.read_bytes(), parse_constant=_refuse)
    except FileNotFoundError:
        raise DataError("the file does not exist", where=str(path)) from None
    except IsADirectoryError:
        raise DataError("this is a folder, not a JSON file", where=str(path)) from None
    except RecursionError:
        raise DataError("not usable JSON: nested too deeply", where=str(path)) from None
    except ValueError as error:  # of the syntax, of the encoding, of a number with thousands of digits
        raise DataError(f"not valid JSON: {error}", where=str(path)) from error


_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring = 3, 100


def short(value: Any) -> str:
    """A value of a JSON file for a message: whatever it is, in little time and few characters."""
    return value[:120] if isinstance(value, str) else _repr.repr(value)[:120]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def load_label_map(path: Path, *, contiguous_id: bool = True) -> Categories:
    """Reads a label map file (a JSON array, see `Categories.from_json`). Raises DataError."""
    return Categories.from_json(read_json(path), where=str(path), contiguous_id=contiguous_id)


def check_agreement(annotations: Categories, label_map: Categories, *, where: str = "") -> None:
    """Raises DataError unless both number the same ids with the same names in the same order.

    Predictions are class indices: a label map in another order would name them wrongly.
    """
    if len(annotations) != len(label_map):
        raise DataError(
            f"the label map has {len(label_map)} categories, the annotations have {len(annotations)}", where=where
        )
    for index, (found, expected) in enumerate(zip(annotations.items, label_map.items, strict=True)):
        if (found.id, found.name) != (expected.id, expected.name):
            raise DataError(
                f"class {index} is {expected.id} '{expected.name}' in the label map "
                f"but {found.id} '{found.name}' in the annotations",
                where=where,
                hint="give the categories of the label map the ids, names and order that they have in the annotations",
            )
