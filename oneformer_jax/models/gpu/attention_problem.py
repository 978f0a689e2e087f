"""What the kernels of attention are given: arrays, and how their work is dealt to programs.

Axes: g groups that attend apart (images, or windows of images), q queries, k keys, h heads, d channels of a head.
"""

from dataclasses import dataclass
from typing import NamedTuple

from jax import Array
from jax.experimental import pallas as pl

from oneformer_jax.models.gpu.tiles import side

ENOUGH_PROGRAMS = 512
"""A few for each multiprocessor of a GPU."""


class Inputs(NamedTuple):
    """What every kernel reads, or references to it.

    Queries, keys and values may be one array, with the heads of one after those of the other (`Problem.is_packed`).
    `bias` is added to the logits. What is not 0 in `blocked` has no weight; its groups repeat. `words` are two of the
    key of dropout and the number of groups on the devices before this one.
    """

    query: Array  # (g, q, h, d)
    key: Array  # (g, k, h, d)
    value: Array  # (g, k, h, d)
    bias: Array | None  # (h, q, k) float32
    blocked: Array | None  # (a divisor of g, q, k) int8
    words: Array  # (3,) uint32


class Cotangents(NamedTuple):
    """What the kernels of the backward pass read besides, or references to it."""

    means: Array  # (g, q, h, d), of the results
    normaliser: Array  # (g, h, q) float32: logarithm of the sum of the exponentials of a query's logits
    products: Array  # (g, h, q) float32: of the results with their cotangents


@dataclass(frozen=True)
class Problem:
    """The sizes of a call on one device, and what else is static about it.

    `scale` multiplies the products of queries and keys; weights are dropped with probability `rate`. The kernels of the
    backward pass multiply all weights by `unit`, a power of two, lest those of very many keys vanish in float16.
    """

    groups: int
    queries: int
    keys: int
    heads: int
    width: int
    is_packed: bool
    scale: float
    rate: float
    unit: float
    interpret: bool

    @property
    def tiles(self) -> tuple[int, int]:
        """Along queries and along keys."""
        return pl.cdiv(self.queries, side(self.queries)), pl.cdiv(self.keys, side(self.keys))

    @property
    def tiles_of_split(self) -> int:
        """Tiles of keys that a program sums over: few enough to make enough programs, where keys may be many."""
        rows, columns = self.tiles
        enough = 1 if self.is_packed else ENOUGH_PROGRAMS // (self.groups * self.heads * rows)
        return pl.cdiv(columns, max(1, enough))

    @property
    def splits(self) -> int:
        return pl.cdiv(self.tiles[1], self.tiles_of_split)

    @property
    def shares(self) -> int:
        """Of the groups, that a program sums the gradient of a tile of the bias over."""
        rows, columns = self.tiles
        return min(self.groups, max(1, ENOUGH_PROGRAMS // (rows * columns * self.heads)))

    @property
    def first_heads(self) -> tuple[int, int, int]:
        """Of queries, keys and values in their arrays."""
        return (0, self.heads, 2 * self.heads) if self.is_packed else (0, 0, 0)

    def programs(self, tiles: int) -> int:
        """How many share the tiles of an axis: one where groups and heads make enough of them, as it then has in its
        cache what all tiles need."""
        return 1 if self.groups * self.heads >= ENOUGH_PROGRAMS else tiles

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the results."""
        return self.groups, self.queries, self.heads, self.width
