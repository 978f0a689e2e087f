"""Masks whose numbers hold the class and the object at once, as those of benchmarks: one for each picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.dataset import Segment
from oneformer_jax.data.importers.mask_pixels import read_mask
from oneformer_jax.data.importers.reader import Item, Reader, Regions
from oneformer_jax.errors import DataError

Code = tuple[int, bool]
"""A class index, and whether the number is that of one object; (-1, False) where it is no class."""


@dataclass
class CodedMasks(Reader):
    """See `Reader`. `decode` says what a number of a mask stands for, None: nothing that the benchmark knows. What has
    the class of objects and is none is a crowd."""

    format: str
    items: Sequence[Item]
    categories: Categories
    decode: Callable[[int], Code | None]
    guesses: list[str] = field(default_factory=list)
    left_out: list[DataError] = field(default_factory=list)
    has_objects: bool = True
    regions: bool = True

    def read(self, item: Item) -> Regions:
        mask = read_mask(item.labels[0])
        numbers, inverse = np.unique(mask.numbers, return_inverse=True)
        ids, segments, unknown = np.zeros(len(numbers), np.int32), dict[int, Segment](), list[int]()
        free = len(self.categories)
        for position, number in enumerate(numbers.tolist()):
            code = self.decode(number)
            index, is_object = code or (-1, False)
            if code is None:
                unknown.append(number)
            elif index >= 0:
                free += is_object
                ids[position] = free if is_object else index + 1
                iscrowd = not is_object and bool(self.categories.is_thing[index])
                segments[int(ids[position])] = Segment(int(ids[position]), index, iscrowd)
        what = f"values that stand for no class are read as no class: {', '.join(map(str, unknown[:3]))}"
        notes = (DataError(what, where=str(item.labels[0])),) if unknown else ()
        return Regions(mask.painted(ids[inverse.reshape(-1)]), tuple(segments.values()), notes)
