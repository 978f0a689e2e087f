"""The Pallas kernels of attention (Dao et al. 2022; Dao 2023), for Triton: one forward, three backward.

A program makes tiles of logits where it needs them, so that logits, weights and masks of dropout never reach memory.
Every program stores sums of its own: there are no atomic additions, and the same inputs give the same bits.

Axes: g groups that attend apart (images, or windows of images), q queries, k keys, h heads, d channels of a head. i
counts tiles of queries, j tiles of keys.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl

from oneformer_jax.models.gpu.attention_problem import Cotangents, Inputs, Problem
from oneformer_jax.models.gpu.tiles import Ref, load, numbers, pairs, product, side, span, store, tokens
from oneformer_jax.models.layers import mixed_bits

LOW = -1e30
"""A logit whose weight is zero. Minus infinity would make a tile that is blocked as a whole not a number."""

Place = tuple[Array, Array, Array, Array]
"""Of a tile: g, h, i, j."""


def means(problem: Problem, inputs: Inputs, means: Ref, normaliser: Ref) -> None:
    split, g, h = pl.program_id(1), pl.program_id(2), pl.program_id(3)

    def of_queries(i: Array) -> None:
        query = load(*tokens(inputs.query, (g,), h, i))

        def add(j: Array, so_far: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            largest, total, sums = so_far
            key, value = _key_and_value(problem, inputs, g, h, j)
            logits = _logits(problem, inputs, (g, h, i, j), query, key)
            larger = jnp.maximum(largest, jnp.max(logits, axis=1))
            # The sum is that of the rounded weights, so that values that are all alike come out as they went in.
            weights = jnp.exp(logits - larger[:, None]).astype(value.dtype)
            before = jnp.exp(largest - larger)
            total = total * before + jnp.sum(weights.astype(jnp.float32), axis=1)
            kept = _dropped(problem, weights, _kept(problem, inputs, (g, h, i, j)))
            return larger, total, sums * before[:, None] + product(kept, value, 1, 0)

        count = len(query)
        first = jnp.full((count,), LOW), jnp.zeros((count,)), jnp.zeros((count, problem.width))
        largest, total, sums = lax.fori_loop(*_tiles_of(problem, split), add, first)
        store(*tokens(means, (split, g), h, i), sums / total[:, None])
        store(*numbers(normaliser, (split, g), h, i), largest + jnp.log(total))

    _for_each(problem, problem.tiles[0], of_queries)


def query_gradient(problem: Problem, inputs: Inputs, cotangents: Cotangents, *gradients: Ref) -> None:
    """Packed: where the gradients of keys and values, which come before the result, already are."""
    split, g, h = pl.program_id(1), pl.program_id(2), pl.program_id(3)

    def of_queries(i: Array) -> None:
        rows = _rows(inputs, cotangents, g, h, i)

        def add(j: Array, total: Array) -> Array:
            key, value = _key_and_value(problem, inputs, g, h, j)
            _, of_logits = _derivatives(problem, inputs, (g, h, i, j), rows, key, value)
            return total + product(of_logits.astype(key.dtype), key, 1, 0)

        zeros = jnp.zeros((len(rows.query), problem.width))
        total = lax.fori_loop(*_tiles_of(problem, split), add, zeros)
        lead = (g,) if problem.is_packed else (split, g)
        store(*tokens(gradients[-1], lead, h, i), total * (problem.scale / problem.unit))

    _for_each(problem, problem.tiles[0], of_queries)


def key_and_value_gradients(problem: Problem, inputs: Inputs, cotangents: Cotangents, *gradients: Ref) -> None:
    g, h = pl.program_id(1), pl.program_id(2)
    _, first_key, first_value = problem.first_heads

    def of_keys(j: Array) -> None:
        key, value = _key_and_value(problem, inputs, g, h, j)

        def add(i: Array, so_far: tuple[Array, Array]) -> tuple[Array, Array]:
            of_key, of_value = so_far
            rows = _rows(inputs, cotangents, g, h, i)
            weights, of_logits = _derivatives(problem, inputs, (g, h, i, j), rows, key, value)
            of_key += product(of_logits.astype(key.dtype), rows.query, 0, 0)
            return of_key, of_value + product(weights.astype(value.dtype), rows.cotangent, 0, 0)

        zeros = jnp.zeros((len(key), problem.width))
        of_key, of_value = lax.fori_loop(0, problem.tiles[0], add, (zeros, zeros))
        store(*tokens(gradients[0], (g,), first_key + h, j), of_key * (problem.scale / problem.unit))
        store(*tokens(gradients[-1], (g,), first_value + h, j), of_value * (1 / problem.unit))

    _for_each(problem, problem.tiles[1], of_keys)


def bias_gradient(problem: Problem, inputs: Inputs, cotangents: Cotangents, gradient: Ref) -> None:
    i, j, share, h = (pl.program_id(axis) for axis in range(4))
    shares = gradient.shape[0]

    def add(g: Array, total: Array) -> Array:
        key, value = _key_and_value(problem, inputs, g, h, j)
        rows = _rows(inputs, cotangents, g, h, i)
        return total + _derivatives(problem, inputs, (g, h, i, j), rows, key, value)[1]

    first, last = (n * problem.groups // shares for n in (share, share + 1))
    zeros = jnp.zeros((side(problem.queries), side(problem.keys)))
    total = lax.fori_loop(first, last, add, zeros)
    store(*pairs(gradient, (share, h), i, j), total * (1 / problem.unit))


def _tiles_of(problem: Problem, split: Array) -> tuple[Array, Array]:
    """The first tile of keys of a split, and the one after its last."""
    each = problem.tiles_of_split
    return split * each, jnp.minimum((split + 1) * each, problem.tiles[1])


def _for_each(problem: Problem, tiles: int, function: Callable[[Array], None]) -> None:
    """Runs the function for the tiles of this program."""
    if problem.programs(tiles) == tiles:
        function(pl.program_id(0))
    else:
        lax.fori_loop(0, tiles, lambda tile, _: function(tile), None)


class _Rows(NamedTuple):
    """A tile of queries, and what belongs to each of them."""

    query: Array
    cotangent: Array
    normaliser: Array
    product: Array


def _key_and_value(problem: Problem, inputs: Inputs, g: Array, h: Array, j: Array) -> tuple[Array, Array]:
    _, first_key, first_value = problem.first_heads
    key, value = tokens(inputs.key, (g,), first_key + h, j), tokens(inputs.value, (g,), first_value + h, j)
    return load(*key), load(*value)


def _rows(inputs: Inputs, cotangents: Cotangents, g: Array, h: Array, i: Array) -> _Rows:
    both = (load(*tokens(x, (g,), h, i)) for x in (inputs.query, cotangents.means))
    sums = (load(*numbers(x, (g,), h, i)) for x in (cotangents.normaliser, cotangents.products))
    return _Rows(*both, *sums)


def _derivatives(
    problem: Problem, inputs: Inputs, place: Place, rows: _Rows, key: Array, value: Array
) -> tuple[Array, Array]:
    """The weights of a tile, some of them dropped, and the cotangents of its logits; both times `unit`."""
    logits = _logits(problem, inputs, place, rows.query, key)
    weights = problem.unit * jnp.exp(logits - rows.normaliser[:, None])
    kept = _kept(problem, inputs, place)
    of_weights = _dropped(problem, product(rows.cotangent, value, 1, 1), kept)
    return _dropped(problem, weights, kept), weights * (of_weights - rows.product[:, None])


def _logits(problem: Problem, inputs: Inputs, place: Place, query: Array, key: Array) -> Array:
    g, h, i, j = place
    logits = product(query, key, 1, 1) * problem.scale
    if inputs.bias is not None:
        logits += load(*pairs(inputs.bias, (h,), i, j))
    if inputs.blocked is not None:
        group = lax.rem(g, inputs.blocked.shape[0])
        logits = jnp.where(load(*pairs(inputs.blocked, (group,), i, j)) != 0, LOW, logits)
    _, inside = span(problem.keys, j)
    return logits if inside is None else jnp.where(inside[None], logits, LOW)


def _kept(problem: Problem, inputs: Inputs, place: Place) -> Array | None:
    """Which weights of a tile dropout keeps, drawn as `layers.random_bits` does for an array (g, h, q, k)."""
    if not problem.rate:
        return None
    g, h, i, j = place
    first, second, before = (inputs.words[n] for n in range(3))
    rows, columns = (tile * side(n) + jnp.arange(side(n)) for tile, n in ((i, problem.queries), (j, problem.keys)))
    row = ((before + g.astype(jnp.uint32)) * problem.heads + h.astype(jnp.uint32)) * problem.queries
    position = (row + rows.astype(jnp.uint32))[:, None] * problem.keys + columns.astype(jnp.uint32)[None]
    return mixed_bits(first + position, second) >= jnp.uint32(round(problem.rate * 2**32))


def _dropped(problem: Problem, x: Array, kept: Array | None) -> Array:
    return x if kept is None else jnp.where(kept, x * (1 / (1 - problem.rate)), 0)
