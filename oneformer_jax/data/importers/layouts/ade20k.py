"""ADE20K: the challenge of 2016 with 150 classes, and the full data set of 2021 with its objects.

2016: `images/training/*.jpg`, `annotations/training/*.png` with a class for each pixel, 0 for none, and the names in
`objectInfo150.txt`. 2021: `NAME.jpg`, `NAME_seg.png` and `NAME.json` side by side; red and green of a mask are the
class, red // 10 * 256 + green, blue is the object.
"""

import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.images import pictures_below
from oneformer_jax.data.importers.in_order import in_order
from oneformer_jax.data.importers.layouts.coded_masks import Code, CodedMasks
from oneformer_jax.data.importers.layouts.semantic_masks import SemanticMasks
from oneformer_jax.data.importers.mask_pixels import color_of, read_mask
from oneformer_jax.data.importers.pairs import pairs_of, split_of
from oneformer_jax.data.importers.reader import Format, Item, Options, Progress
from oneformer_jax.errors import DataError
from oneformer_jax.stored import parse_json

_INFO, _CLASSES = "objectInfo150.txt", 150
_ROW = re.compile(r"(?P<number>\d+)\s+[\d.]+\s+\d+\s+\d+\s+(?P<name>\S.*)")
_SEG = "_seg.png"


def find_challenge(source: Path) -> str:
    """Why this seems to be the challenge's data."""
    if (source / "annotations" / "training").is_dir() and (source / "images" / "training").is_dir():
        if (source / _INFO).is_file():
            return f"it holds {_INFO} beside images and annotations"
        return "its folder is called ADEChallengeData2016" if source.name == "ADEChallengeData2016" else ""
    return ""


def open_challenge(source: Path, options: Options, progress: Progress) -> SemanticMasks:
    """Raises DataError: no picture has a mask, or the list of classes is not as published."""
    pairs, guesses = pairs_of(source, options), list[str]()
    if not pairs.items:
        raise DataError("no picture has a mask", where=str(source), hint="images/training and annotations/training")
    names = [f"class {number}" for number in range(1, _CLASSES + 1)]
    if (source / _INFO).is_file():
        names = _names(source / _INFO)
    else:
        guesses.append(f"There is no {_INFO} that names the classes: they are called after their numbers.")
    entries = [{"id": number, "name": name, "isthing": 0} for number, name in enumerate(names, start=1)]
    progress(len(pairs.items))
    index_of = {number: number - 1 for number in range(1, len(names) + 1)}
    categories = Categories.from_json(entries, where=str(source / _INFO))
    return SemanticMasks(pairs.items, categories, index_of, frozenset({0}), guesses, pairs.left_out, format="ade20k")


def _names(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    rows = [found for line in lines if (found := _ROW.fullmatch(line.strip()))]
    if [int(row["number"]) for row in rows] != list(range(1, _CLASSES + 1)):
        what = f"found {len(rows)} classes, expected the table of {_CLASSES} that comes with the data"
        raise DataError(what, where=str(path))
    return [row["name"] for row in rows]


def find_full(source: Path) -> str:
    """Why this seems to be the full data set."""
    masks = [path for path in pictures_below(source) if path.name.endswith(_SEG)]
    described = sum((source / path.parent / path.name.replace(_SEG, ".json")).is_file() for path in masks[:50])
    return f"{len(masks)} masks *{_SEG} with descriptions in JSON" if described else ""


def open_full(source: Path, options: Options, progress: Progress) -> CodedMasks:
    """The classes are those that the descriptions name. A class is countable where any picture has two objects of it.
    Raises DataError: there is no picture with a mask and a description."""
    items, left_out = list[Item](), list[DataError]()
    for path in pictures_below(source):
        if not path.name.endswith(_SEG):
            continue
        stem = path.name.removesuffix(_SEG)
        image, text = (source / path.parent / f"{stem}{suffix}" for suffix in (".jpg", ".json"))
        if not image.is_file() or not text.is_file():
            left_out.append(DataError("the mask has no picture or no description", where=str(source / path)))
            continue
        split = split_of(path.parts[:-1])
        items.append(Item(stem, image, (source / path, text), split))
    if not items:
        raise DataError(
            "no picture has a mask and a description", where=str(source), hint="NAME.jpg, NAME_seg.png, ..."
        )
    names, most = dict[int, str](), Counter[int]()
    for done, found in enumerate(in_order(_classes_in, items), start=1):
        progress(done)
        if isinstance(found, DataError):
            left_out.append(found)
            continue
        for number, (name, objects) in found.items():
            names.setdefault(number, name)
            most[number] = max(most[number], objects)
    numbers = sorted(names)
    entries = [{"id": n, "name": names[n], "isthing": int(most[n] > 1)} for n in numbers]
    categories = Categories.from_json(entries, where=str(source))

    def decode(number: int) -> Code | None:
        red, green, blue = color_of(number)
        category = red // 10 * 256 + green
        if category == 0:
            return -1, False
        index = categories.index_of.get(category)
        return None if index is None else (index, blue > 0 and bool(categories.is_thing[index]))

    guesses = [
        "A class is countable where any picture has two objects of it.",
        "Parts of objects are left out: they lie over the objects that they belong to.",
    ]
    return CodedMasks("ade20k-full", items, categories, decode, guesses, left_out)


def _utf8(path: Path) -> str:
    """The text of a file of which some published ones are in Latin-1."""
    content = path.read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _classes_in(item: Item) -> dict[int, tuple[str, int]] | DataError:
    """The names of the classes in a picture by their numbers, and how many objects of each there are."""
    try:
        content = parse_json(_utf8(item.labels[1]), where=str(item.labels[1]))
        mask = read_mask(item.labels[0])
    except DataError as error:
        return error
    objects = defaultdict[int, set[int]](set)
    for number in np.unique(mask.numbers).tolist():
        red, green, blue = color_of(number)
        objects[red // 10 * 256 + green].add(blue)
    annotation = content.get("annotation") if isinstance(content, dict) else None
    listed = annotation.get("object") if isinstance(annotation, dict) else None
    if not isinstance(listed, list):
        return DataError("there is no list annotation.object", where=str(item.labels[1]))
    found: dict[int, tuple[str, int]] = {}
    for entry in listed:
        number = entry.get("name_ndx") if isinstance(entry, dict) else None
        if type(number) is int and number in objects:
            found[number] = str(entry.get("name")), len(objects[number] - {0})
    return found


CHALLENGE = Format("ade20k", "ADE20K of 2016, 150 classes", find_challenge, open_challenge)
FULL = Format("ade20k-full", "ADE20K of 2021, all classes and objects", find_full, open_full)
