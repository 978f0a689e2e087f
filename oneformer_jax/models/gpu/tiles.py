"""Tiles of arrays in Pallas kernels for Triton: where they lie, loading and storing them, products of two.

Sides of tiles are powers of two, as Triton wants; what lies beyond the end of an axis is loaded as zero and not stored.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

LARGEST_SIDE, SMALLEST_SIDE = 64, 16

Ref = Any
Tile = tuple[Ref, Array | None]
"""A view of a reference, and which of its entries exist, broadcast against them; None: all do."""


def product(a: Array, b: Array, axis_of_a: int, axis_of_b: int) -> Array:
    """The product of two matrices over these axes, float32."""
    return lax.dot_general(a, b, (((axis_of_a,), (axis_of_b,)), ((), ())), preferred_element_type=jnp.float32)


def side(length: int) -> int:
    """Of tiles along an axis of this length."""
    return min(LARGEST_SIDE, max(SMALLEST_SIDE, pl.next_power_of_2(length)))


def span(length: int, tile: Array) -> tuple[Any, Array | None]:
    """A tile of an axis as a slice, and which of it lies inside the axis: None where every tile does."""
    size = side(length)
    start = tile * size
    return pl.ds(start, size), None if length % size == 0 else start + jnp.arange(size) < length


def tokens(ref: Ref, lead: tuple[Array, ...], h: Array, tile: Array) -> Tile:
    """The tokens (side, d) of a head, in an array (..., t, h, d)."""
    here, inside = span(ref.shape[-3], tile)
    return ref.at[(*lead, here, h)], None if inside is None else inside[:, None]


def numbers(ref: Ref, lead: tuple[Array, ...], h: Array, tile: Array) -> Tile:
    """A number for each token (side,) of a head, in an array (..., h, t)."""
    here, inside = span(ref.shape[-1], tile)
    return ref.at[(*lead, h, here)], inside


def pairs(ref: Ref, lead: tuple[Array, ...], i: Array, j: Array) -> Tile:
    """A number for each pair of tokens (side, side), in an array (..., t, t)."""
    (rows, above), (columns, left) = span(ref.shape[-2], i), span(ref.shape[-1], j)
    at = ref.at[(*lead, rows, columns)]
    if above is None:
        return at, None if left is None else left[None]
    return at, above[:, None] if left is None else above[:, None] & left[None]


def load(at: Ref, inside: Array | None) -> Array:
    return at[...] if inside is None else triton.load(at, mask=inside, other=0)


def store(at: Ref, inside: Array | None, values: Array) -> None:
    triton.store(at, values.astype(at.dtype), mask=inside)
