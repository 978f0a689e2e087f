"""Masks with a class for each pixel: grey, palette or colours, one for each picture."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.dataset import Segment, listing
from oneformer_jax.data.importers.class_table import find_table, read_table
from oneformer_jax.data.importers.classes_of_masks import NumberedClasses, by_table, by_values, seen_in
from oneformer_jax.data.importers.mask_pixels import color_of, read_mask
from oneformer_jax.data.importers.pairs import files_of, pairs_of
from oneformer_jax.data.importers.reader import ALL, Format, Item, Options, Progress, Reader, Regions
from oneformer_jax.errors import DataError

VOC = (
    *(
        "background",
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
    ),
    *("dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The classes of Pascal VOC by their values in masks."""


@dataclass
class SemanticMasks(Reader):
    """See `Reader`. Every class is stuff: no mask tells one object from the next."""

    items: Sequence[Item]
    categories: Categories
    index_of: Mapping[int, int]
    void: Set[int]
    guesses: list[str]
    left_out: list[DataError]
    palette_colors: bool = False
    format: str = "masks"
    regions: bool = True
    has_objects: bool = False

    def read(self, item: Item) -> Regions:
        mask = read_mask(item.labels[0], palette_colors=self.palette_colors)
        numbers, inverse = np.unique(mask.numbers, return_inverse=True)
        found = [self.index_of.get(number, -1) for number in numbers.tolist()]
        unknown = [
            number
            for number, index in zip(numbers.tolist(), found, strict=True)
            if index < 0 and number not in self.void
        ]
        ids = mask.painted((np.array(found, np.int32) + 1)[inverse.reshape(-1)])
        segments = tuple(Segment(index + 1, index, False) for index in sorted(set(found) - {-1}))
        if not unknown:
            return Regions(ids, segments)
        names = ", ".join(str(color_of(number) if mask.is_color else number) for number in unknown[:3])
        kind = "colours" if mask.is_color else "values"
        what = f"{kind} that no class has are read as no class: {names}"
        note = DataError(what, where=str(item.labels[0]), hint="list all classes: --classes FILE")
        return Regions(ids, segments, (note,))


def find(source: Path) -> str:
    """Why these seem to be masks of classes."""
    files = files_of(source, Options())
    masks, pictures = {file.key for file in files if file.mask}, {file.key for file in files if not file.mask}
    if common := len(masks & pictures):
        names = sorted({file.mask for file in files if file.mask})
        return f"{common} pictures have a mask of the same name ({', '.join(names[:3])})"
    return ""


def open_masks(source: Path, options: Options, progress: Progress) -> SemanticMasks:
    """Pairs pictures and masks, and finds out which classes there are. Raises DataError: there are none."""
    pairs, guesses = pairs_of(source, options), list[str]()
    if not pairs.items:
        what = listing("no picture has a mask:", pairs.left_out) if pairs.left_out else "no picture has a mask"
        raise DataError(what, where=str(source), hint="name both folders: --images FOLDER --labels FOLDER")
    masks = [item.labels[0] for item in pairs.items]
    path = options.classes or find_table(dict.fromkeys([source, *(mask.parent for mask in masks[:1]), source.parent]))
    table = read_table(path) if path else None
    palette_colors = bool(table and table.has_colors and all(entry.id is None for entry in table.entries))
    seen = seen_in(masks, progress, palette_colors=palette_colors)
    if seen.palettes_differ and not palette_colors:
        guesses.append("The palettes of the masks differ, so that colours count and not positions in a palette.")
        palette_colors = True
        seen = seen_in(masks, progress, palette_colors=True)
    if table is not None:
        if options.classes is None:
            guesses.append(f"The classes are those of {table.path}.")
        classes = by_table(table, seen, options.ignore)
    else:
        classes = by_values(seen, options.ignore, guesses)
        classes = _named_as_voc(source, classes, guesses)
    return SemanticMasks(pairs.items, *classes, guesses, pairs.left_out, palette_colors)


def _named_as_voc(source: Path, classes: NumberedClasses, guesses: list[str]) -> NumberedClasses:
    """The names of Pascal VOC where its folder and its values say so."""
    items = classes.categories.items
    if not (source / "SegmentationClass").is_dir() or any(item.id >= len(VOC) for item in items):
        return classes
    guesses[:] = [guess for guess in guesses if not guess.startswith("Nothing names")]
    guesses.append("The names of the classes are Pascal VOC's, by the folder SegmentationClass.")
    named = [{**entry, "name": VOC[entry["id"]]} for entry in classes.categories.to_json()]
    return NumberedClasses(Categories.from_json(named), classes.index_of, classes.void)


FORMAT = Format("masks", "masks of classes (grey, palette, RGB), one a picture", find, open_masks, ALL)
