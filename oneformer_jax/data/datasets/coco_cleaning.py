"""Annotation files as tools write them, made what the format says: read as it is meant where there is one meaning, left
out where nothing could be learned from it. Each kind of change is noted once, with its count.

Contradictions are none of these kinds: the readers refuse them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from oneformer_jax.data.datasets import OnBad
from oneformer_jax.data.datasets.categories import short
from oneformer_jax.data.datasets.dataset import Problems
from oneformer_jax.errors import DataError

Place = Callable[[], str]

_EXAMPLES = 3
_MAX_DIGITS = 18  # of a number that 64 bits hold
_NO_CROWD = "without iscrowd: read as 0"
_AS_NUMBER = "with a number that is written as text or with a decimal point: read as the whole number that it is"
_NO_ID = "without an id: numbered"
_SAME_ID = "with the id of one before: numbered anew"
_NESTED = "with a polygon that is not in a list of polygons, or is a list of points: read as the polygon that it is"
_ONLY_BOX = "with a box and without a mask"
_NO_MASK = "without a mask"
_TOO_FEW_POINTS = "with a polygon of fewer than three points"
_BAD = (_ONLY_BOX, _NO_MASK, _TOO_FEW_POINTS)
_HINT = "draw masks or convert the boxes; dataset.on_bad_annotation: drop leaves these out, refuse stops"


def whole(value: Any) -> Any:
    """The whole number that `value` writes as text or with a decimal point; anything else as it is."""
    if type(value) is float and value.is_integer() and abs(value) < 10**_MAX_DIGITS:
        return int(value)
    if isinstance(value, str) and len(value) <= _MAX_DIGITS and value.isascii():
        return int(value) if value.removeprefix("-").isdecimal() else value
    return value


def clean(
    content: dict[str, Any], where: str, on_bad: OnBad, left_out: list[DataError] | None = None
) -> tuple[DataError, ...]:
    """Changes the lists of an annotation file in place, and says what was changed. With a list `left_out`, that gets
    each entry from which nothing can be learned, and instances get an id of their own where one before has theirs.

    Raises DataError where annotations are to be refused from which nothing can be learned.
    """
    cleaner = _Cleaner(where, left_out)
    for entry in content["categories"]:
        cleaner.numbers(entry, ("id", "isthing"), partial(_place, "category", entry, "name"))
    for entry in content["images"]:
        keys = ("height", "width", *(("id",) if type(_get(entry, "id")) is float else ()))
        cleaner.numbers(entry, keys, partial(_place, "image", entry, "id"))
    images = _by_text(content["images"])
    numbers = (whole(_get(entry, "id")) for entry in content["annotations"])
    largest = max((number for number in numbers if type(number) is int), default=0)
    kept, seen = [], set[int]()
    for entry in content["annotations"]:
        if isinstance(entry, dict):
            if "segments_info" in entry:
                cleaner.panoptic(entry, images)
            elif not cleaner.instance(entry, images, largest + 1):
                continue
            elif type(number := entry["id"]) is int:
                if left_out is not None and number in seen:
                    cleaner.note(_SAME_ID, partial(_place, "annotation", {"id": number}, "id"))
                    entry["id"] = number = largest + 1
                largest = max(largest, number)
                seen.add(number)
        kept.append(entry)
    content["annotations"] = kept
    notes = {kind: _note(kind, places, count, where, on_bad) for kind, (count, places) in cleaner.found.items()}
    if on_bad == "refuse":
        Problems(notes[kind] for kind in _BAD if kind in notes).raise_all()
    return tuple(notes.values())


class _Cleaner:
    """Changes entries; `found`: how often each kind of change was made, and where first."""

    def __init__(self, where: str, left_out: list[DataError] | None) -> None:
        self.where, self.left_out = where, left_out
        self.found: dict[str, tuple[int, list[str]]] = {}

    def note(self, kind: str, place: Place) -> None:
        count, places = self.found.get(kind, (0, []))
        if len(places) < _EXAMPLES and (text := place()) not in places:
            places.append(text)
        self.found[kind] = (count + 1, places)
        if kind in _BAD and self.left_out is not None:
            self.left_out.append(DataError(f"{place()}: {kind}", where=self.where))

    def numbers(self, entry: Any, keys: tuple[str, ...], place: Place, *, changed: bool = False) -> None:
        """Whole numbers where an object holds them in another form; `changed`: one was put right before."""
        for key in keys if isinstance(entry, dict) else ():
            value = entry.get(key)
            if type(value) is not int and type(number := whole(value)) is int:
                entry[key], changed = number, True
        if changed:
            self.note(_AS_NUMBER, place)

    def panoptic(self, entry: dict[str, Any], images: Mapping[str, Any]) -> None:
        place = partial(_place, "image", entry, "image_id")
        if self.image_id(entry, images):
            self.note(_AS_NUMBER, place)
        infos = entry["segments_info"]
        for info in infos if isinstance(infos, list) else ():
            self.segment(info, place)

    def instance(self, entry: dict[str, Any], images: Mapping[str, Any], free_id: int) -> bool:
        """False where nothing can be learned from it."""
        key = "id" if entry.get("id") is not None else "image_id"
        place = partial(_place, "annotation" if key == "id" else "one of image", entry, key)
        if not self.mask(entry, place):
            return False
        if entry.get("id") is None:
            self.note(_NO_ID, place)
            entry["id"] = free_id
        self.segment(entry, place, changed=self.image_id(entry, images))
        return True

    def segment(self, entry: Any, place: Place, *, changed: bool = False) -> None:
        """What the formats share: an id, a class, and whether it is a crowd."""
        self.numbers(entry, ("id", "category_id", "iscrowd"), place, changed=changed)
        if isinstance(entry, dict) and entry.get("iscrowd") is None:
            entry["iscrowd"] = 0
            self.note(_NO_CROWD, place)

    def image_id(self, entry: dict[str, Any], images: Mapping[str, Any]) -> bool:
        """Whether it became what the image has, as one image alone can be meant."""
        found = entry.get("image_id")
        if type(found) not in (int, float, str):
            return False
        meant = images.get(str(found) if str(found) in images else str(whole(found)))
        if meant is not None and (type(meant), meant) != (type(found), found):
            entry["image_id"] = meant
            return True
        return False

    def mask(self, entry: dict[str, Any], place: Place) -> bool:
        """Whether there is a mask. Polygons that are none are left out."""
        mask = entry.get("segmentation")
        if isinstance(mask, list) and (polygon := _only_polygon(mask)):
            mask = [polygon]
            self.note(_NESTED, place)
        if mask in (None, "", {}) or (isinstance(mask, list | dict) and not any(_parts(mask))):
            self.note(_ONLY_BOX if entry.get("bbox") else _NO_MASK, place)
            return False
        if isinstance(mask, list):
            polygons = [part for part in mask if not isinstance(part, list) or len(part) >= 6]
            if len(polygons) < len(mask):
                self.note(_TOO_FEW_POINTS, place)
            entry["segmentation"] = polygons
            return bool(polygons)
        return True


def _parts(mask: list[Any] | dict[str, Any]) -> list[Any]:
    return mask if isinstance(mask, list) else [mask.get("counts")]


def _only_polygon(mask: list[Any]) -> list[Any]:
    """The polygon that a mask is which holds its numbers x0, y0, x1, ... itself, or its points; else []."""
    if all(isinstance(value, int | float) for value in mask):
        return mask
    points = mask[0] if len(mask) == 1 and isinstance(mask[0], list) else mask
    are_points = len(points) >= 3 and all(isinstance(point, list) and len(point) == 2 for point in points)
    return [value for point in points for value in point] if are_points else []


def _by_text(images: list[Any]) -> dict[str, Any]:
    """The ids of images by the texts that they and their numbers are written as, None where those of several are."""
    found: dict[str, Any] = {}
    for entry in images:
        if type(image := _get(entry, "id")) in (int, str):
            for text in {str(image), str(whole(image))}:
                found[text] = image if found.setdefault(text, image) == image else None
    return found


def _get(entry: Any, key: str) -> Any:
    return entry.get(key) if isinstance(entry, dict) else None


def _place(what: str, entry: Any, key: str) -> str:
    return f"{what} {short(_get(entry, key))}"


def _note(kind: str, places: list[str], count: int, where: str, on_bad: OnBad) -> DataError:
    examples = ", ".join([*places, "..."] if count > len(places) else places)
    what = f"{count} {'entry' if count == 1 else 'entries'} {kind} ({examples})"
    if kind not in _BAD:
        return DataError(what, where=where)
    return DataError(f"{what}{': left out' if on_bad == 'drop' else ''}", where=where, hint=_HINT)
