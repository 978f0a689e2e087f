"""labelme: a JSON file beside each picture, with polygons, rectangles, circles and masks.

Shapes of one group and label are one object.
"""

import base64
import io
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.coco_instances import compress
from oneformer_jax.data.datasets.images import image_size
from oneformer_jax.data.geometry import Size
from oneformer_jax.data.importers.class_table import VOID_NAMES, find_table, read_table
from oneformer_jax.data.importers.in_order import in_order
from oneformer_jax.data.importers.pairs import split_of, without_splits
from oneformer_jax.data.importers.reader import Format, Item, Options, Progress, Reader, Shape, Shapes
from oneformer_jax.data.importers.run_lengths import run_lengths_of, united
from oneformer_jax.data.storage.folders import Spellings, files_below
from oneformer_jax.errors import DataError
from oneformer_jax.stored import read_json

_JSON = frozenset({".json"})
_CORNERS_OF_A_CIRCLE = 64
_BACKGROUND = "_background_"


@dataclass
class Labelme(Reader):
    """See `Reader`."""

    items: Sequence[Item]
    categories: Categories
    guesses: list[str]
    left_out: list[DataError]
    format: str = "labelme"
    regions: bool = False
    has_objects: bool = True

    def read(self, item: Item) -> Shapes:
        path = item.labels[0]
        content = _read(path)
        size, notes = _size(content, item.image), list[DataError]()
        groups = defaultdict[tuple[str, Any], list[Any]](list)
        index_of = {name: index for index, name in enumerate(self.categories.names)}
        for number, shape in enumerate(content["shapes"]):
            try:
                label = str(shape.get("label", ""))
                if label.casefold() in VOID_NAMES or label == _BACKGROUND:
                    continue
                if label not in index_of:
                    raise DataError(f"the label {label!r} is not among the classes")
                group = shape.get("group_id")
                part = _segmentation(shape, size)
                groups[label, ("alone", number) if group is None else group].append(part)
            except (DataError, AttributeError, TypeError, ValueError, KeyError, IndexError) as error:
                what = error.what if isinstance(error, DataError) else "it is not as labelme writes shapes"
                hint = error.hint if isinstance(error, DataError) else ""
                notes.append(DataError(what, where=f"{path}: shape {number}", hint=hint))
        shapes = tuple(Shape(index_of[label], False, united(parts, size)) for (label, _), parts in groups.items())
        return Shapes(size, shapes, tuple(notes))


def _read(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise DataError("there is no list 'shapes': this is not labelme's JSON", where=str(path))
    return content


def _size(content: dict[str, Any], image: Path) -> Size:
    height, width = content.get("imageHeight"), content.get("imageWidth")
    if type(height) is int and type(width) is int:
        return height, width
    return image_size(image)


def _segmentation(shape: dict[str, Any], size: Size) -> Any:
    """The mask of a shape in COCO's notations. Raises DataError for shapes without an area."""
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    corners = [(float(x), float(y)) for x, y in points]
    if kind == "mask":
        return _mask(shape["mask"], corners, size)
    if kind == "rectangle":
        (x0, y0), (x1, y1) = corners[:2] if len(corners) == 2 else (corners[0], corners[2])
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    elif kind == "circle":
        (x, y), edge = corners
        radius = math.dist((x, y), edge)
        angles = [2 * math.pi * step / _CORNERS_OF_A_CIRCLE for step in range(_CORNERS_OF_A_CIRCLE)]
        corners = [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]
    elif kind not in ("polygon", "oriented_rectangle"):
        raise DataError(f"a {kind} has no area", hint="draw a polygon, a rectangle, a circle or a mask")
    polygon = [[value for corner in corners for value in corner]]
    compress(polygon, size)  # or it says why not
    return polygon


def _mask(encoded: str, corners: list[tuple[float, float]], size: Size) -> Any:
    """A mask that fills the box between two corners, both inclusive."""
    inner = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded)), formats=("PNG",))) != 0
    left, top = (round(value) for value in corners[0])
    whole = np.zeros(size, bool)
    target = whole[max(0, top) : top + inner.shape[0], max(0, left) : left + inner.shape[1]]
    target[:] = inner[max(0, -top) :, max(0, -left) :][: target.shape[0], : target.shape[1]]
    return run_lengths_of(whole)


def find(source: Path) -> str:
    """Why these seem to be labelme's files."""
    for path in files_below(source, _JSON)[:5]:
        try:
            content = _read(source / path)
        except DataError:
            continue
        if "imagePath" in content:
            return f"{path} has shapes and the path of a picture"
    return ""


def open_labelme(source: Path, options: Options, progress: Progress) -> Labelme:
    """Finds the pictures and the labels that occur. Raises DataError: there are none."""
    paths = [source / path for path in files_below(source, _JSON)]
    items, left_out, labels = list[Item](), list[DataError](), set[str]()
    spellings, seen = Spellings(), dict[tuple[str, str], Path]()

    def read(path: Path) -> dict[str, Any] | DataError:
        try:
            return {**_read(path), "imageData": None}
        except DataError as error:
            return error

    for done, (path, content) in enumerate(zip(paths, in_order(read, paths), strict=True), start=1):
        progress(done)
        if isinstance(content, DataError):
            left_out.append(content)
            continue
        image = _picture(path, content, spellings)
        if image is None:
            what = f"there is no picture {str(content.get('imagePath'))[:200]!r}"
            hint = "save pictures beside the files: those inside of JSON are not read"
            left_out.append(DataError(what, where=str(path), hint=hint))
            continue
        inner = path.relative_to(source).with_suffix("")
        split = split_of(inner.parts[:-1])
        name = without_splits(inner)
        if (split, name) in seen:
            where = f"{seen[split, name]}, {path}"
            left_out.append(DataError("two files of labels have one name", where=where))
            continue
        seen[split, name] = path
        items.append(Item(name, image, (path,), split))
        labels |= {str(shape.get("label", "")) for shape in content["shapes"] if isinstance(shape, dict)}
    if not items:
        raise DataError("no file of labelme with its picture is there", where=str(source))
    table = options.classes or find_table([source])
    names = [entry.name for entry in read_table(table).entries] if table else sorted(labels)
    names = [name for name in names if name and name.casefold() not in VOID_NAMES and name != _BACKGROUND]
    guesses = [f"The classes are those of {table}."] if table and not options.classes else []
    entries = [{"id": number, "name": name, "isthing": 1} for number, name in enumerate(names, start=1)]
    return Labelme(items, Categories.from_json(entries, where=str(source)), guesses, left_out)


def _picture(path: Path, content: dict[str, Any], spellings: Spellings) -> Path | None:
    """The picture that a file names, perhaps on Windows, or the one beside it of its name."""
    given = str(content.get("imagePath") or "")
    names = [given, PureWindowsPath(given).name, *(path.stem + PurePath(given).suffix,)]
    return next(
        (
            found
            for name in names
            if name and (found := spellings.find(path.parent / name)) is not None and found.is_file()
        ),
        None,
    )


FORMAT = Format(
    "labelme", "labelme: a JSON file of shapes for each picture", find, open_labelme, frozenset({"classes"})
)
