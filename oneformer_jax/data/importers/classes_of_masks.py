"""Which number of a mask is which class, from a list of classes or from the masks themselves."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.importers.class_table import ClassTable, TableEntry
from oneformer_jax.data.importers.in_order import in_order
from oneformer_jax.data.importers.mask_pixels import GREY, Mask, color_of, number_of, read_mask
from oneformer_jax.data.importers.reader import Progress
from oneformer_jax.errors import DataError

MOST_CLASSES = 1024
"""More numbers than this in masks without a list of classes are no classes."""
MANY_CLASSES = 100
VOID = 255
BINARY = ((0, "background"), (255, "foreground"))


@dataclass
class Seen:
    """What masks hold, all of them together: `values` are numbers that are no colours."""

    values: set[int] = field(default_factory=set)
    colors: set[int] = field(default_factory=set)
    palette: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    palettes_differ: bool = False

    def add(self, mask: Mask) -> None:
        """Notes the numbers of a mask."""
        numbers = np.unique(mask.numbers).tolist()
        (self.colors if mask.is_color else self.values).update(numbers)
        for number in numbers if len(mask.palette) else ():
            if number < len(mask.palette):
                color = (*mask.palette[number].tolist(),)
                self.palettes_differ |= self.palette.setdefault(number, color) != color


def seen_in(paths: Sequence[Path], progress: Progress, *, palette_colors: bool) -> Seen:
    """The numbers in all masks; those that cannot be read are met again when they are imported."""
    seen = Seen()

    def read(path: Path) -> Mask | None:
        try:
            return read_mask(path, palette_colors=palette_colors)
        except DataError:
            return None

    for done, mask in enumerate(in_order(read, paths), start=1):
        if mask is not None:
            seen.add(mask)
        if len(seen.values | seen.colors) > 64 * MOST_CLASSES:
            break
        progress(done)
    return seen


class NumberedClasses(NamedTuple):
    """The classes, the class index of each number in a mask, and the numbers that are no class."""

    categories: Categories
    index_of: Mapping[int, int]
    void: Set[int]


def by_table(table: ClassTable, seen: Seen, ignore: tuple[int, ...] | None) -> NumberedClasses:
    """The classes of a list. Raises DataError where masks are colours and the list has none, or the other way round."""
    by_color = bool(seen.colors)
    grey = by_color and all(number % GREY == 0 for number in seen.colors)

    def number(entry: TableEntry) -> int | None:
        if not by_color:
            return entry.id
        if entry.color is not None and not (
            grey and entry.id is not None and number_of(entry.color) not in seen.colors
        ):
            return number_of(entry.color)
        return entry.id * GREY if grey and entry.id is not None else None

    numbers = {entry.name: number(entry) for entry in table.entries}
    if missing := [name for name, value in numbers.items() if value is None]:
        kind, wanted = ("colours", "colour") if by_color else ("numbers", "number")
        raise DataError(
            f"the masks hold {kind}, but the list gives no {wanted} for {', '.join(map(repr, missing[:3]))}",
            where=str(table.path),
            hint=f"add a {wanted} to each class, or name another list: --classes FILE",
        )
    void = {value for entry in table.void if (value := number(entry)) is not None}
    ignored = {value * GREY if grey else value for value in ignore or ()}
    if ignore is None and (grey or not by_color):
        ignored |= {VOID * (GREY if grey else 1)} - set(numbers.values())
    entries: list[dict[str, Any]] = []
    index_of: dict[int, int] = {}
    for entry in table.entries:
        value = numbers[entry.name]
        assert value is not None
        if value not in ignored:
            index_of[value] = len(entries)
            number_in_file = entry.id if entry.id is not None else len(entries) + 1
            entries.append(_entry(number_in_file, entry.name, entry.color))
    return NumberedClasses(Categories.from_json(entries, where=str(table.path)), index_of, frozenset(void | ignored))


def by_values(seen: Seen, ignore: tuple[int, ...] | None, guesses: list[str]) -> NumberedClasses:
    """A class for each number in the masks. Raises DataError: there are too many for classes."""
    numbers, grey = seen.values | seen.colors, not seen.values and all(it % GREY == 0 for it in seen.colors)
    if len(numbers) > MOST_CLASSES:
        kind = "colours" if seen.colors else "values"
        raise DataError(
            f"the masks hold more than {MOST_CLASSES} {kind}, which are no classes",
            hint=f"masks of classes have few {kind}: write them without smoothing and JPEG, or list the classes and "
            "their colours in a file: --classes FILE",
        )
    unit = GREY if grey else 1
    values = sorted(number // unit for number in numbers) if grey or not seen.colors else sorted(numbers)
    ignored = set(ignore or ())
    names: dict[int, str] = {}
    if ignore is None and values == [value for value, _ in BINARY] and (grey or not seen.colors):
        names = dict(BINARY)
        guesses.append("All masks hold 0 and 255 alone: 0 is read as background, 255 as foreground.")
    elif ignore is None and VOID in values and (grey or not seen.colors):
        ignored.add(VOID)
        guesses.append("The value 255 is read as no class, as is usual; --ignore names other values.")
    elif ignore is None and 0 in values and not grey and seen.colors:
        ignored.add(0)
        guesses.append("Black is read as no class; --ignore -1 makes it one.")
    kept = [value for value in values if value not in ignored]
    if not kept:
        raise DataError("no mask holds a class", hint="--ignore names the values of a mask that are no class")
    if not names:
        guesses.append(
            "Nothing names the classes: they are called after their values. --classes FILE names them, or a file "
            "classes.txt beside the pictures, one name a line from 0 on."
        )
    if len(kept) > MANY_CLASSES and not names:
        guesses.append(
            f"There are {len(kept)} values. Where masks were resized with smoothing, most of them are no classes: "
            "--classes FILE lists those that are, and all others are left out."
        )
    is_color = bool(seen.colors) and not grey
    entries = []
    for index, value in enumerate(kept):
        color = color_of(value) if is_color else seen.palette.get(value)
        name = names.get(value) or (
            ("colour #{:02x}{:02x}{:02x}".format(*color_of(value))) if is_color else f"class {value}"
        )
        entries.append(_entry(index + 1 if is_color else value, name, color))
    index_of = {value * unit: index for index, value in enumerate(kept)}
    return NumberedClasses(Categories.from_json(entries), index_of, frozenset(value * unit for value in ignored))


def _entry(number: int, name: str, color: tuple[int, int, int] | None) -> dict[str, Any]:
    visible = color is not None and any(color)  # black would not be seen in pictures
    return {"id": number, "name": name, "isthing": 0} | ({"color": list(color)} if color and visible else {})
