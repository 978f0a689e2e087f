"""What a reader of labels gives, whatever files it reads: pictures, classes, the labels of one picture at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.dataset import Segment
from oneformer_jax.data.geometry import Size
from oneformer_jax.errors import DataError

Progress = Callable[[int], None]
"""Gets how many files are read."""


ALL = frozenset({"classes", "ignore", "images", "labels"})
"""The names of all options."""


@dataclass(frozen=True)
class Options:
    """What a person says about a source, where it does not say so itself: `classes`, a file that lists classes;
    `ignore`, values of a mask that are no class; the folders of pictures and of labels, below the source."""

    classes: Path | None = None
    ignore: tuple[int, ...] | None = None
    images: str = ""
    labels: str = ""

    @property
    def given(self) -> set[str]:
        """The names of those that are said."""
        return {name for name in ALL if getattr(self, name) not in (None, "")}


class Item(NamedTuple):
    """A picture with its files of labels. `name` is its path below the pictures without the suffix, which no other of
    its split has; `split` is "train", "val" or "test" where the source says so, else "", and so is its `group`, whose
    pictures must not lie on both sides of a split."""

    name: str
    image: Path
    labels: tuple[Path, ...]
    split: str = ""
    group: str = ""


@dataclass(frozen=True)
class Regions:
    """Labels that do not overlap: the id of the segment of each pixel, 0 for none, and the segments, whose `category`
    is a class index. `notes` say what was left out of them."""

    ids: Int32[np.ndarray, "h w"]
    segments: tuple[Segment, ...]
    notes: tuple[DataError, ...] = ()


class Shape(NamedTuple):
    """An object: its class index, whether it marks a crowd, and its mask in COCO's notations."""

    category: int
    iscrowd: bool
    segmentation: Any


@dataclass(frozen=True)
class Shapes:
    """Labels that may overlap, in a picture of `size` (height, width). `notes` say what was left out of them."""

    size: Size
    shapes: tuple[Shape, ...]
    notes: tuple[DataError, ...] = ()


@runtime_checkable
class Reader(Protocol):
    """The labels of a source.

    `format` is its name on the command line. `guesses`: what nothing in the source says and was assumed, a sentence
    each. `left_out`: files that cannot be used. `regions`: whether labels are `Regions`, else they are `Shapes`;
    `has_objects`: whether they tell one object from the next.
    """

    format: str
    categories: Categories
    items: Sequence[Item]
    guesses: list[str]
    left_out: list[DataError]
    regions: bool
    has_objects: bool

    def read(self, item: Item) -> Regions | Shapes:
        """The labels of a picture. Raises DataError: they cannot be used. It is called from several threads."""


@dataclass(frozen=True)
class Format:
    """A layout of labels: `title` says in words what it is. `find` says why a source seems to have it, "" where it does
    not; `open` reads what concerns all pictures. Raises DataError. `options` are those that it heeds."""

    name: str
    title: str
    find: Callable[[Path], str]
    open: Callable[[Path, Options, Progress], Reader]
    options: frozenset[str] = frozenset()
