"""The categories of a data set: class indices, names, things and stuff, colours.

A class index is the position in the category list of the annotations. All that is used together (the splits, the label
map, a checkpoint) must agree with it: there is one comparison.
"""

import colorsys
import reprlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, UInt8

from oneformer_jax.errors import DataError
from oneformer_jax.stored import read_json

LISTED = 8
"""Names of one message."""

SAME_ORDER = "give both the same classes in the same order, with the same ids"


Aspect = Literal["classes", "order", "ids", "things", "colours"]
"""In what two lists of categories can differ: `order` is that of the same names."""


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

    def name_of(self, index: int) -> str:
        """The name of a class; a number beyond the categories is an output of a model that has none."""
        return self.items[index].name if index < len(self) else f"class {index}"

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

    @classmethod
    def numbered(cls, count: int) -> "Categories":
        """Of a model whose classes nobody has named: all are things."""
        return cls.from_json([{"id": index, "name": f"class {index}"} for index in range(count)])

    @property
    def are_numbered(self) -> bool:
        """Whether nobody has named them."""
        return self.names == tuple(f"class {index}" for index in range(len(self)))

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


_repr = reprlib.Repr()
_repr.maxlevel, _repr.maxstring = 3, 100


def short(value: Any) -> str:
    """A value of a JSON file for a message: whatever it is, in little time and few characters."""
    return value[:120] if isinstance(value, str) else _repr.repr(value)[:120]


def load_label_map(path: Path, *, contiguous_id: bool = True, like: Categories | None = None) -> Categories:
    """Reads a label map file (a JSON array, see `Categories.from_json`). The colours and the `isthing` that it leaves
    out are those of the classes of the same names in `like`. Raises DataError."""
    content = read_json(path)
    if like is not None and isinstance(content, list):
        known = {item.name: {"isthing": item.isthing, "color": list(item.color)} for item in like.items}
        content = [_filled(entry, known) if isinstance(entry, dict) else entry for entry in content]
    return Categories.from_json(content, where=str(path), contiguous_id=contiguous_id)


def _filled(entry: dict[str, Any], known: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """An entry of a label map with what it leaves out."""
    given = {key: value for key, value in entry.items() if key != "color" or value}
    return known.get(str(entry.get("name")), {}) | given


def with_label_map(
    categories: Categories, path: Path, *, stated: Collection[int], contiguous_id: bool = True
) -> tuple[Categories, tuple[str, ...]]:
    """`categories` with the colours, things and stuff of a label map, and a warning for each class that it makes a
    thing against the annotations or stuff; `stated` are the ids of which the annotations say what they are.

    Raises DataError: unreadable, or other ids, names or another order.
    """
    label_map = load_label_map(path, contiguous_id=contiguous_id, like=categories)
    check_agreement((categories, "the annotations"), (label_map, "the label map"), "ids", where=str(path))
    warnings = tuple(
        f"{path}: '{ours.name}' is {KIND[given.isthing]}, which counts: the annotations say {KIND[ours.isthing]}"
        for ours, given in zip(categories.items, label_map.items, strict=True)
        if given.isthing != ours.isthing and ours.id in stated
    )
    return label_map, warnings


Side = tuple[Categories, str]
"""Categories, and whose they are, for messages."""

KIND = {True: "a thing", False: "stuff"}


def disagreements(first: Side, second: Side) -> dict[Aspect, str]:
    """In what the categories of two sides differ, each with what the second and the first one say."""
    (ours, here), (theirs, there) = first, second
    if ours.names != theirs.names:
        pairs = zip_longest(ours.names, theirs.names)
        index, a, b = next((index, a, b) for index, (a, b) in enumerate(pairs) if a != b)
        if sorted(ours.names) == sorted(theirs.names):
            a, b = (
                ", ".join(f"'{name}'" for name in names[index : index + LISTED]) for names in (theirs.names, ours.names)
            )
            return {"order": f"the classes from {index} on are {a} in {there}, but {b} in {here}"}
        one, other = (f"'{name}'" if name is not None else "missing" for name in (b, a))
        numbers = f"{len(theirs)} classes in {there}, {len(ours)} in {here}: " if len(ours) != len(theirs) else ""
        return {"classes": f"{numbers}class {index} is {one} in {there}, but {other} in {here}"}
    values: dict[Aspect, Callable[[Category], str]] = {
        "ids": lambda item: f"{item.id}",
        "things": lambda item: KIND[item.isthing],
        "colours": lambda item: f"{item.color}",
    }
    found: dict[Aspect, str] = {}
    for aspect, value in values.items():
        different = [(a, b) for a, b in zip(ours.items, theirs.items, strict=True) if value(a) != value(b)]
        if different:
            (a, b), *others = different
            what = "has the id" if aspect == "ids" else "has the colour" if aspect == "colours" else "is"
            found[aspect] = f"'{a.name}' {what} {value(b)} in {there}, but {value(a)} in {here}"
            if others:
                names = ", ".join(f"'{other.name}'" for other, _ in others[:LISTED])
                more = ", ..." if len(others) > LISTED else ""
                found[aspect] += f"; the two differ in {len(others)} others too: {names}{more}"
    return found


def check_agreement(first: Side, second: Side, *besides: Aspect, where: str = "", hint: str = SAME_ORDER) -> None:
    """Raises DataError unless both have the same classes in the same order, and agree in what is named `besides`.

    Predictions are class indices: a list in another order would name them wrongly.
    """
    for aspect, text in disagreements(first, second).items():
        if aspect in ("classes", "order", *besides):
            raise DataError(text, where=where, hint=hint)
