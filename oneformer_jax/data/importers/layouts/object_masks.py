"""Two masks for each picture, one with classes and one that numbers objects: Pascal VOC, CamVid with instances, others.

An object is of the class that most of its pixels have; 0 numbers none. What has the class of objects and no number is
a crowd of that class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.dataset import Segment
from oneformer_jax.data.importers.in_order import in_order
from oneformer_jax.data.importers.layouts.semantic_masks import SemanticMasks, open_masks
from oneformer_jax.data.importers.mask_pixels import read_mask
from oneformer_jax.data.importers.pairs import files_of
from oneformer_jax.data.importers.reader import ALL, Format, Item, Options, Progress, Reader, Regions
from oneformer_jax.errors import DataError


@dataclass
class ObjectMasks(Reader):
    """See `Reader`. `things` are the class indices that objects have."""

    items: Sequence[Item]
    categories: Categories
    masks: SemanticMasks
    things: frozenset[int]
    guesses: list[str]
    left_out: list[DataError]
    format: str = "object-masks"
    regions: bool = True
    has_objects: bool = True

    def read(self, item: Item) -> Regions:
        labels = self.masks.read(item)
        numbers = _numbers(item, labels)
        classes = _classes_of(numbers, labels, len(self.categories))
        kept = {number: index for number, index in classes.items() if index >= 0}
        rows = np.zeros(max(classes, default=0) + 1, np.int32)
        rows[list(kept)] = len(self.categories) + 1 + np.arange(len(kept))
        objects = rows[numbers]
        segments = [segment._replace(iscrowd=segment.category in self.things) for segment in labels.segments]
        segments += [Segment(int(rows[number]), index, False) for number, index in kept.items()]
        return Regions(np.where(objects > 0, objects, labels.ids), tuple(segments), labels.notes)


def _numbers(item: Item, labels: Regions) -> np.ndarray:
    """The objects of a picture, numbered from 1 on; 0 where none is. Raises DataError."""
    mask = read_mask(item.labels[1])
    if mask.size != labels.ids.shape:
        (height, width), (rows, columns) = mask.size, labels.ids.shape
        what = f"the mask of objects is of {height}x{width} (height x width), that of classes of {rows}x{columns}"
        raise DataError(what, where=str(item.labels[1]))
    values, inverse = np.unique(np.append(mask.numbers, 0), return_inverse=True)
    return mask.painted(inverse.reshape(-1)[:-1].astype(np.int32) - int(np.searchsorted(values, 0)))


def _classes_of(numbers: np.ndarray, labels: Regions, count: int) -> dict[int, int]:
    """The class index of each object by its number, -1 for one that lies mostly where no class is."""
    inside = numbers > 0
    pairs = numbers[inside].astype(np.int64) * (count + 1) + labels.ids[inside]
    table = np.bincount(pairs, minlength=count + 1).astype(np.int64)
    table = np.pad(table, (0, -len(table) % (count + 1))).reshape(-1, count + 1)
    present = np.flatnonzero(table.any(axis=1)).tolist()
    return {number: int(table[number].argmax()) - 1 for number in present}


def find(source: Path) -> str:
    """Why these seem to be masks of classes and of objects."""
    files = files_of(source, Options())
    objects = {file.key: file.mask for file in files if file.of_objects}
    classes = {file.key: file.mask for file in files if file.mask and not file.of_objects}
    pictures = {file.key for file in files if not file.mask}
    if common := objects.keys() & classes.keys() & pictures:
        names = sorted({classes[key] for key in common} | {objects[key] for key in common})
        return f"{len(common)} pictures have masks of classes and of objects ({', '.join(names[:4])})"
    return ""


def open_object_masks(source: Path, options: Options, progress: Progress) -> ObjectMasks:
    """Finds both masks of each picture, and which classes are countable. Raises DataError: there are none."""
    masks = open_masks(source, options, progress)
    files = files_of(source, options)
    objects: Mapping[tuple[str, str], Path] = {(file.key, file.split): file.path for file in files if file.of_objects}
    items, left_out = list[Item](), list(masks.left_out)
    for item in masks.items:
        path = next((objects[item.name, split] for split in (item.split, "") if (item.name, split) in objects), None)
        if path is None:
            what = "the picture has a mask of classes and none of objects"
            left_out.append(DataError(what, where=str(item.image)))
        else:
            items.append(item._replace(labels=(*item.labels, path)))
    count = len(masks.categories)

    def classes_in(item: Item) -> set[int]:
        try:
            labels = masks.read(item)
            return set(_classes_of(_numbers(item, labels), labels, count).values())
        except DataError:  # which the import will meet again
            return set()

    things = set[int]()
    for done, found in enumerate(in_order(classes_in, items), start=1):
        things |= found
        progress(len(items) + done)
    things.discard(-1)
    entries = [{**entry, "isthing": int(index in things)} for index, entry in enumerate(masks.categories.to_json())]
    return ObjectMasks(items, Categories.from_json(entries), masks, frozenset(things), masks.guesses, left_out)


FORMAT = Format(
    "object-masks",
    "masks of classes and masks that number objects, one of each a picture",
    find,
    open_object_masks,
    ALL,
)
