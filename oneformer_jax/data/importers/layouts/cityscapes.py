"""Cityscapes: `leftImg8bit/SPLIT/CITY/*.png` and `gtFine/SPLIT/CITY/*_gtFine_instanceIds.png`, the 19 classes.

As its own scripts do: a number of 1000 or more is an object of the class number // 1000, a smaller one is a class;
things that are not counted are crowds.
"""

from pathlib import Path

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.images import pictures_below
from oneformer_jax.data.importers.layouts.coded_masks import Code, CodedMasks
from oneformer_jax.data.importers.pairs import SPLITS
from oneformer_jax.data.importers.reader import Format, Item, Options, Progress
from oneformer_jax.errors import DataError

_PICTURES, _PICTURE = "leftImg8bit", "_leftImg8bit.png"
_LABELS, _LABEL = "gtFine", "_gtFine_instanceIds.png"
_FIRST_OBJECT, _LARGEST = 1000, 33
CATEGORIES = Categories.from_json(
    [
        {"id": number, "name": name, "isthing": int(number >= 24), "color": list(color)}
        for number, name, color in (
            (7, "road", (128, 64, 128)),
            (8, "sidewalk", (244, 35, 232)),
            (11, "building", (70, 70, 70)),
            (12, "wall", (102, 102, 156)),
            (13, "fence", (190, 153, 153)),
            (17, "pole", (153, 153, 153)),
            (19, "traffic light", (250, 170, 30)),
            (20, "traffic sign", (220, 220, 0)),
            (21, "vegetation", (107, 142, 35)),
            (22, "terrain", (152, 251, 152)),
            (23, "sky", (70, 130, 180)),
            (24, "person", (220, 20, 60)),
            (25, "rider", (255, 0, 0)),
            (26, "car", (0, 0, 142)),
            (27, "truck", (0, 0, 70)),
            (28, "bus", (0, 60, 100)),
            (31, "train", (0, 80, 100)),
            (32, "motorcycle", (0, 0, 230)),
            (33, "bicycle", (119, 11, 32)),
        )
    ]
)
"""The classes of the benchmark by their numbers in `labelIds`; numbers of things begin with 24."""


def decode(number: int) -> Code | None:
    """What a number in `instanceIds` stands for."""
    category = number // _FIRST_OBJECT if number >= _FIRST_OBJECT else number
    index = CATEGORIES.index_of.get(category, -1)
    if index < 0:
        return (-1, False) if category <= _LARGEST else None
    return index, number >= _FIRST_OBJECT


def find(source: Path) -> str:
    """Why this seems to be Cityscapes."""
    if (source / _PICTURES).is_dir() and (source / _LABELS).is_dir():
        return f"it holds {_PICTURES} and {_LABELS}"
    return ""


def open_cityscapes(source: Path, options: Options, progress: Progress) -> CodedMasks:
    """Pairs pictures and labels. Raises DataError: there are none."""
    items, left_out = list[Item](), list[DataError]()
    withheld = 0
    for done, path in enumerate(pictures_below(source / _PICTURES), start=1):
        progress(done)
        split = SPLITS.get(path.parts[0], "")
        if split == "test":  # whose labels are not public: files of them are empty
            withheld += 1
            continue
        label = source / _LABELS / path.parent / path.name.replace(_PICTURE, _LABEL)
        if not path.name.endswith(_PICTURE) or not label.is_file():
            left_out.append(DataError(f"the picture has no {_LABEL}", where=str(source / _PICTURES / path)))
            continue
        name = "/".join([*path.parts[1:-1], path.name.removesuffix(_PICTURE)])
        items.append(Item(name, source / _PICTURES / path, (label,), split))
    if not items:
        hint = f"{_PICTURES}/train/CITY/NAME{_PICTURE} and {_LABELS}/train/CITY/NAME{_LABEL}"
        raise DataError("no picture has labels", where=str(source), hint=hint)
    guesses = [f"{withheld} pictures of test are left out: their labels are not public."] if withheld else []
    return CodedMasks("cityscapes", items, CATEGORIES, decode, guesses, left_out)


FORMAT = Format("cityscapes", "Cityscapes gtFine, 19 classes", find, open_cityscapes)
