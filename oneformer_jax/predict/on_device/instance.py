"""The most probable pairs of a query and a thing, with masks that leave the device as their beginnings and ends.

Down a column of a picture a mask begins and ends a few times, so what changes is sent: words of 32 pixels in which a
mask begins or ends (`Changes`), with room for one word for each column of each mask. That is 0.8 MB for 100 masks of
1024x1024, of which all pixels are 13 MB, one bit each. Masks that need more are sent as all words, which the device
keeps until then.

Axes: q queries, n pairs, m masks, h w mask logits, x columns of the picture, v words of a column, c words to send.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Float64, Int32, Int64, UInt32

from oneformer_jax.data.geometry import Size
from oneformer_jax.postprocess.instance import RunLengths, run_lengths
from oneformer_jax.postprocess.results import Instance, instances
from oneformer_jax.predict.on_device.sampling import Mix, Sampling, each_strip, mixed

WORD = 32
"""Pixels of a column in a word: bit i is row i."""


class Pairs(NamedTuple):
    """The most probable pairs, best first, and which of them are things."""

    query: Int32[Array, "*b n"]
    label: Int32[Array, "*b n"]
    probability: Float32[Array, "*b n"]
    is_thing: Bool[Array, "*b n"]


class Changes(NamedTuple):
    """`total` words are not 0; the first of them with their places among all words."""

    total: Int32[Array, "*b"]
    place: Int32[Array, "*b c"]
    word: UInt32[Array, "*b c"]

    @property
    def are_all(self) -> bool:
        """Whether there was room for all of them, in NumPy."""
        return bool((np.asarray(self.total) <= self.place.shape[-1]).all())


class Found(NamedTuple):
    """What leaves the device of an image; then its arrays are NumPy's. Mask i is that of the query `chosen[i]` (-1: of
    none), `mass` the sum of its probabilities inside."""

    pairs: Pairs
    chosen: Int32[Array, "*b m"]
    mass: Float32[Array, "*b m"]
    changes: Changes


Words = UInt32[Array, "m x v"]
"""A bit for each pixel: whether it is inside, or whether it is where the one before is not. Before the first pixel of a
column is the last one of the column before."""


def found(
    class_logits: Float32[Array, "q k1"],
    mask_logits: Float32[Array, "q h w"],
    sampling: Sampling,
    is_thing: Bool[Array, " k"],
    *,
    count: int,
) -> tuple[Found, Words]:
    """Of the `count` most probable pairs of one image."""
    pairs = _pairs(class_logits, is_thing, count)
    queries = len(class_logits)
    needed = jnp.zeros(queries, bool).at[pairs.query].max(pairs.is_thing)
    (chosen,) = jnp.nonzero(needed, size=min(queries, count), fill_value=-1)
    mass, inside = _insides(mask_logits[chosen], sampling, chosen >= 0)
    words = _changes(inside, jnp.asarray(sampling.size))
    room = words.shape[0] * words.shape[1]
    return Found(pairs, chosen.astype(jnp.int32), mass, _packed(words.reshape(-1), room)), words


def _pairs(class_logits: Float32[Array, "q k1"], is_thing: Bool[Array, " k"], count: int) -> Pairs:
    probabilities = jax.nn.softmax(class_logits, axis=-1)[:, :-1]
    best, place = jax.lax.top_k(probabilities.reshape(-1), min(count, probabilities.size))
    query, label = jnp.divmod(place.astype(jnp.int32), probabilities.shape[1])
    return Pairs(query, label, best, is_thing[label])


def _insides(
    mask_logits: Float32[Array, "m h w"], sampling: Sampling, is_used: Bool[Array, " m"]
) -> tuple[Float32[Array, " m"], Words]:
    """The sum of the probabilities in each mask, and which pixels are inside, a bit each."""
    turned, bits = mask_logits.swapaxes(1, 2), jnp.arange(WORD, dtype=jnp.uint32)

    def of_strip(columns: Mix) -> tuple[Float32[Array, " m"], Words]:
        logits = mixed(turned, columns, sampling.rows)
        inside = (logits > 0) & is_used[:, None, None]
        mass = jnp.where(inside, jax.nn.sigmoid(logits), 0).sum(axis=(1, 2))
        pixels = inside.reshape(*inside.shape[:2], -1, WORD).astype(jnp.uint32)
        return mass, (pixels << bits[None, None, None]).sum(axis=-1, dtype=jnp.uint32)

    mass, words = each_strip(of_strip, sampling.columns)
    return mass.sum(axis=0), words.swapaxes(0, 1).reshape(words.shape[1], -1, words.shape[-1])


def _changes(inside: Words, size: Int32[Array, " 2"]) -> Words:
    height, width = size
    last = jnp.take(inside, (height - 1) // WORD, axis=2) >> ((height - 1) % WORD).astype(jnp.uint32) & 1
    last = jnp.pad(last, ((0, 0), (1, 0)))[:, :-1]
    before = jnp.concatenate([last[..., None], inside[..., :-1] >> (WORD - 1)], axis=2)
    changes = inside ^ (inside << 1 | before)
    rows = jnp.arange(inside.shape[2] * WORD).reshape(-1, WORD) < height
    valid = (rows.astype(jnp.uint32) << jnp.arange(WORD, dtype=jnp.uint32)[None]).sum(axis=-1, dtype=jnp.uint32)
    columns = jnp.arange(inside.shape[1]) < width
    return jnp.where(columns[None, :, None], changes & valid[None, None], 0)


def _packed(words: UInt32[Array, " a"], room: int) -> Changes:
    so_far = jnp.cumsum(words != 0, dtype=jnp.int32)
    place = jnp.searchsorted(so_far, jnp.arange(1, room + 1, dtype=jnp.int32)).astype(jnp.int32)
    return Changes(so_far[-1], place, jnp.take(words, place, mode="fill", fill_value=0))


def shown(found: Found, words: UInt32[np.ndarray, "m x v"] | None, room: Size, size: Size) -> tuple[Instance, ...]:
    """The instances of one image of `size` (height, width) in arrays for `room`, of the same arrays in NumPy; `words`
    where there are more than `found` has room for."""
    query, label, probability, is_thing = map(np.asarray, found.pairs)
    total, place, word = map(np.asarray, found.changes)
    chosen, mass = np.asarray(found.chosen), np.asarray(found.mass)
    if words is None:
        place, word = place[:total], word[:total]
    else:
        place = np.flatnonzero(words)
        word = words.reshape(-1)[place]
    used = int((chosen >= 0).sum())
    if used == 0:
        return ()
    masks, area = _masks(place, word, used, room, size)
    quality = mass[:used].astype(np.float64) / (area + 1e-6)
    return instances(query[is_thing], label[is_thing], probability[is_thing], chosen[:used], masks, quality)


def _masks(
    place: Int32[np.ndarray, " c"] | Int64[np.ndarray, " c"],
    word: UInt32[np.ndarray, " c"],
    masks: int,
    room: Size,
    size: Size,
) -> tuple[list[RunLengths], Float64[np.ndarray, " m"]]:
    bits = np.unpackbits(word.astype("<u4").view(np.uint8).reshape(-1, WORD // 8), axis=1, bitorder="little")
    which, bit = np.nonzero(bits)
    line, down = np.divmod(place[which].astype(np.int64), room[0] // WORD)
    mask, column = np.divmod(line, room[1])
    return run_lengths(mask, column * size[0] + down * WORD + bit, masks, size)
