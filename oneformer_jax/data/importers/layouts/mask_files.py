"""A file for each object: `ID/images/ID.png` with `ID/masks/*.png` (BBBC038), or `images/ID.png` with `masks/ID/*.png`.

Masks may overlap; what is not 0 belongs to the object. Files do not say its class: all are of one.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.images import image_size, pictures_below, read_label_pixels
from oneformer_jax.data.importers.class_table import find_table, read_table
from oneformer_jax.data.importers.pairs import split_of, without_splits
from oneformer_jax.data.importers.reader import Format, Item, Options, Progress, Reader, Shape, Shapes
from oneformer_jax.data.importers.run_lengths import run_lengths_of
from oneformer_jax.errors import DataError

_IMAGES, _MASKS = "images", "masks"


@dataclass
class MaskFiles(Reader):
    """See `Reader`."""

    items: Sequence[Item]
    categories: Categories
    guesses: list[str]
    left_out: list[DataError]
    format: str = "mask-files"
    regions: bool = False
    has_objects: bool = True

    def read(self, item: Item) -> Shapes:
        size, shapes, notes = image_size(item.image), list[Shape](), list[DataError]()
        for path in item.labels:
            try:
                pixels = read_label_pixels(path)[0]
            except DataError as error:
                notes.append(error)
                continue
            mask = pixels.any(axis=-1) if pixels.ndim == 3 else pixels != 0
            if mask.shape != size:
                what = f"the mask is of {mask.shape[0]}x{mask.shape[1]} (height x width), the picture of {size[0]}x"
                notes.append(DataError(f"{what}{size[1]}", where=str(path)))
            elif not mask.any():
                notes.append(DataError("the mask shows no pixel", where=str(path)))
            else:
                shapes.append(Shape(0, False, run_lengths_of(np.ascontiguousarray(mask))))
        return Shapes(size, tuple(shapes), tuple(notes))


@dataclass
class _Object:
    """What belongs to one picture: files of it, its folder of masks, and the files there."""

    pictures: list[Path] = field(default_factory=list)
    folder: Path = Path()
    masks: list[Path] = field(default_factory=list)


def _found(source: Path) -> dict[str, _Object]:
    """Pictures and masks by the name of the picture."""
    found = defaultdict[str, _Object](_Object)
    for path in pictures_below(source):
        parts = path.parts[:-1]
        if _MASKS in parts:
            position = parts.index(_MASKS)
            found["/".join(parts[:position] + parts[position + 1 :])].masks.append(source / path)
        elif _IMAGES in parts:
            position = parts.index(_IMAGES)
            above, below = parts[:position], parts[position + 1 :]
            of_its_own = above[-1:] == (path.stem,) and (source / PurePath(*above) / _MASKS).is_dir()
            name = above if of_its_own else (*above, *below, path.stem)
            one = found["/".join(name)]
            one.pictures.append(source / path)
            one.folder = source / PurePath(*above, _MASKS, *(() if of_its_own else (*below, path.stem)))
    return found


def find(source: Path) -> str:
    """Why these seem to be files of one object each."""
    several = [one for one in _found(source).values() if one.pictures and len(one.masks) > 1]
    return f"{len(several)} pictures have a folder of masks with a file for each object" if several else ""


def open_mask_files(source: Path, options: Options, progress: Progress) -> MaskFiles:
    """Pairs pictures with their folders of masks. Raises DataError: there are none."""
    items, left_out, guesses = list[Item](), list[DataError](), list[str]()
    for done, (name, one) in enumerate(sorted(_found(source).items()), start=1):
        if len(one.pictures) > 1:
            names = ", ".join(map(str, one.pictures))
            left_out.append(DataError("several pictures have the same name but for the suffix", where=names))
        elif not one.pictures:
            left_out.append(DataError("the folder of masks has no picture", where=str(one.masks[0].parent)))
        elif not one.folder.is_dir():
            left_out.append(DataError("the picture has no folder of masks", where=str(one.pictures[0])))
        else:
            inner = PurePath(name)
            split = split_of(inner.parts[:-1])
            items.append(Item(without_splits(inner), one.pictures[0], tuple(one.masks), split))
        progress(done)
    if not items:
        raise DataError("no picture has a folder of masks", where=str(source), hint="ID/images/ID.png, ID/masks/*.png")
    path = options.classes or find_table([source])
    name = read_table(path).entries[0].name if path else "object"
    if not path:
        guesses.append('Nothing names the class: it is called "object". --classes FILE names it.')
    return MaskFiles(items, Categories.from_json([{"id": 1, "name": name, "isthing": 1}]), guesses, left_out)


FORMAT = Format(
    "mask-files", "a file for each object, in a folder for each picture", find, open_mask_files, frozenset({"classes"})
)
