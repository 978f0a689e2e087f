"""Tiny data sets by the classes of their segments."""

from pathlib import Path

import numpy as np

from oneformer_jax.data.datasets.categories import Categories, Category
from oneformer_jax.data.datasets.dataset import VOID, Dataset, Record, Segment

ROWS, COLUMNS = 4, 8
Table = list[tuple[int, bool]]
"""The class of each segment of an image, and whether it is a crowd."""


class Striped(Dataset):
    """Images whose segments are a column of pixels each, from the left; the rest is void. `things`: T or S for each
    class. The first half of the images is the data set `one`, the others are `two`."""

    planes = 1

    def __init__(self, tables: list[Table], things: str = "TTS", where: str = "notes.json") -> None:
        self.where = where
        items = [Category(k, f"class {k}", kind == "T", (0, 0, 0)) for k, kind in enumerate(things)]
        self.categories = Categories(tuple(items))
        self.records = tuple(
            Record(i, Path(f"{i}.png"), ROWS, COLUMNS, tuple(Segment(n + 1, *found) for n, found in enumerate(table)))
            for i, table in enumerate(tables)
        )
        half = len(tables) // 2
        self.parts = {"one": range(half), "two": range(half, len(tables))}

    def read_segments(self, i: int) -> np.ndarray:
        planes = np.full((1, ROWS, COLUMNS), VOID, np.int16)
        for row in range(len(self.records[i].segments)):
            planes[0, :, row] = row
        return planes
