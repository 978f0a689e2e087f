"""Neighbourhood attention (Hassani et al. 2023; dilated: Hassani and Shi 2022) by products of matrices.

Along an axis the pixels at distances that a dilation divides are a grid of their own. On its grid a pixel attends to
the `kernel` nearest ones: itself and as many on either side, or, near a border, the first or last `kernel` ("shifted");
with zeros beyond the border they are always those on either side ("zero_padded").

The queries of a grid are cut into tiles, and each tile has all keys that any of its queries attends to: their number is
that of the tile and twice the reach. Where a key stands in a tile depends on nothing but its distance from the tile, so
that all tiles share one table of distances: keys that would be beyond a border make room for others that no query of
the tile sees.

Axes: b images, h w pixels of a map, n heads, d channels of a head, m tiles of all grids, q queries and k keys of a
tile; of one axis: r grids, t tiles, i queries and j keys of a tile.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from oneformer_jax.models import ops
from oneformer_jax.models.layers import Dropout

Borders = Literal["shifted", "zero_padded"]
Places = Array | np.ndarray
"""Rows or columns of tiles: t i, or t j."""
TILE = 8


class Axis(NamedTuple):
    """How the grids of one axis are cut. Rows are those of a grid; keys count `before` zeros before the first one.

    `queries` and `keys` are rows of each tile, `offsets` the distance of a key from a query plus kernel - 1, `seen`
    which keys a query attends to, `place` where among all queries of the tiles each row is.
    """

    rows: int
    before: int
    queries: Int[np.ndarray, "t i"]
    keys: Int[np.ndarray, "t j"]
    offsets: Int[np.ndarray, "i j"]
    seen: Bool[np.ndarray, "r t i j"]
    place: Int[np.ndarray, " rows"]


@lru_cache(maxsize=256)
def cut(length: int, kernel: int, dilation: int, borders: Borders) -> Axis:
    """The tiles of an axis. Raises ValueError: a shifted window is longer than the axis."""
    reach, rows = kernel // 2, -(-length // dilation)
    if borders == "shifted" and length < kernel * dilation:
        raise ValueError(f"{length} pixels are fewer than the {kernel} x {dilation} of a window")
    tile = max(TILE, reach + 2)
    tile = rows if rows <= tile + 2 * reach else tile
    starts = np.minimum(np.arange(-(-rows // tile)) * tile, rows - tile)  # the last tile has queries of another, too
    queries = starts[:, None] + np.arange(tile)[None]
    wanted = starts[:, None] + np.arange(tile + 2 * reach)[None] - reach
    if borders == "zero_padded":
        before, keys, first = reach, wanted, (queries - reach)[None]
    else:
        before, members = 0, ((length - np.arange(dilation) + dilation - 1) // dilation)[:, None, None]  # of each grid
        size = min(rows, tile + 2 * reach)
        lowest = np.clip(starts - reach, 0, rows - size)[:, None]
        wanted = np.arange(rows)[None] if size == rows else wanted
        keys = lowest + (wanted - lowest) % size
        within = np.minimum(queries[None], members - 1)  # what is no pixel does as the last one does
        first = np.clip(within - reach, 0, members - kernel)
        first = first[:1] if length % dilation == 0 else first
    seen = (keys[None, :, None] >= first[..., None]) & (keys[None, :, None] < first[..., None] + kernel)
    distances = (wanted - starts[:, None])[:1] - np.arange(tile)[:, None]
    offsets = np.clip(distances + kernel - 1, 0, 2 * kernel - 2)  # those of keys that are not seen are of no matter
    place = np.arange(rows)
    place = place + (place >= starts[-1]) * ((len(starts) - 1) * tile - starts[-1])
    small = partial(np.asarray, dtype=np.int32)
    return Axis(rows, before, small(queries), small(keys + before), small(offsets), seen, small(place))


def neighbourhood_attention(
    projected: Float[Array, "b h w 3 n d"]
    | tuple[Float[Array, "b h w n d"], Float[Array, "b h w n d"], Float[Array, "b h w n d"]],
    *,
    kernel: int,
    dilation: int = 1,
    borders: Borders = "shifted",
    table: Float[Array, "n side side"] | None = None,
    in_parts: bool = False,
) -> Float[Array, "b h w n d"]:
    """Means of the values of a pixel's neighbourhood, weighted by the softmax of query . key / sqrt(d).

    `projected` are queries, keys and values. `table`, of 2 kernel - 1 a side, is added to the logits by the distance of
    the key, in steps of the dilation. With "zero_padded" the zeros beyond the borders take part with the logit 0.
    `in_parts`: many logits are computed in parts, one after the other, where the platform needs that (`ops.parts_of`);
    derivatives are slower then. Raises ValueError: a shifted window is larger than the map.
    """
    arrays: tuple[Array, ...] = projected if isinstance(projected, tuple) else (projected,)
    size, channels = arrays[0].shape[1:3], arrays[0].shape[-2:]
    axes = [cut(length, kernel, dilation, borders) for length in size]
    rows, columns = axes
    bias = None
    if table is not None:
        index = rows.offsets[:, None, :, None] * (2 * kernel - 1) + columns.offsets[None, :, None, :]
        flat = table.reshape(table.shape[0], -1)
        of_tile = index.shape[0] * index.shape[1], index.shape[2] * index.shape[3]
        bias = jnp.take(flat, index.ravel(), axis=1, mode="clip").reshape(-1, *of_tile)

    parted = dilation**2 if dilation > 1 else len(rows.queries)
    pairs = rows.offsets.size * columns.offsets.size * len(rows.queries) * len(columns.queries) * dilation**2
    parts = ops.parts_of(parted, arrays[0].shape[0] * channels[0] * pairs) if in_parts else 1
    if parts == 1 and len(arrays) == 1:  # one gather of keys and one of values, each of what it needs
        arrays = tuple(arrays[0][..., i, :, :] for i in range(3))
    grids = tuple(_grids(x, dilation) for x in arrays)
    if rows.before:
        border = (rows.before, rows.before)
        pad = [(0, 0), (0, 0), border, border, (0, 0), (0, 0)]
        grids = (grids[0], *(jnp.pad(x, pad) for x in grids[1:]))
    tiles = Tiles(grids, rows.keys, columns.keys, *_seen(rows, columns, dilation))

    def means(q: Float[Array, "b m q n d"], tiles: Tiles) -> Float[Array, "b m q n d"]:
        k, v = (_in_tiles(_one_of(tiles.arrays, i), (tiles.rows, tiles.columns)) for i in (1, 2))
        no_dropout = Dropout(0.0, True)
        return ops.attend((q, k, v), no_dropout, scale=channels[-1] ** -0.5, bias=bias, blocked=tiles.unseen)

    queries = _in_tiles(_one_of(grids, 0), (rows.queries, columns.queries))
    x = means(queries, tiles) if parts == 1 else _one_after_the_other(means, queries, tiles, parts)
    (t, i), (u, j) = rows.queries.shape, columns.queries.shape
    x = x.reshape(-1, dilation * dilation, t, u, i, j, *channels).transpose(0, 1, 2, 4, 3, 5, 6, 7)
    x = x.reshape(-1, dilation * dilation, t * i, u * j, *channels)
    for axis, cuts in enumerate(axes, 2):
        x = _taken(x, cuts.place, axis)
    x = x.reshape(-1, dilation, dilation, rows.rows, columns.rows, *channels).transpose(0, 3, 1, 4, 2, 5, 6)
    return x.reshape(-1, rows.rows * dilation, columns.rows * dilation, *channels)[:, : size[0], : size[1]]


class Tiles(NamedTuple):
    """All tiles, or those of some grids, or of a single one some rows of tiles: queries, keys and values of the grids,
    which may be one array; the rows and columns of the tiles' keys; and which of them, along each axis, a query attends
    to."""

    arrays: tuple[Array, ...]
    rows: Places
    columns: Places
    seen_in_rows: Places
    seen_in_columns: Places

    @property
    def unseen(self) -> Bool[Array, "1 m q k"]:
        """Which keys of its tile a query does not attend to."""
        by_rows = jnp.asarray(self.seen_in_rows)[:, :, None, :, None, :, None]
        by_columns = jnp.asarray(self.seen_in_columns)[:, None, :, None, :, None, :]
        seen = by_rows & by_columns
        _, _, _, i, j, keys_of_rows, keys_of_columns = seen.shape
        return ~seen.reshape(1, -1, i * j, keys_of_rows * keys_of_columns)

    def part(self, number: Array, parts: int) -> "Tiles":
        """One of so many."""

        def cut(x: Places, axis: int = 0) -> Array:
            length = x.shape[axis] // parts
            return lax.dynamic_slice_in_dim(jnp.asarray(x), number * length, length, axis)

        if len(self.seen_in_rows) > 1:
            arrays = tuple(cut(x, 1) for x in self.arrays)
            return Tiles(arrays, self.rows, self.columns, cut(self.seen_in_rows), cut(self.seen_in_columns))
        return self._replace(rows=cut(self.rows), seen_in_rows=cut(self.seen_in_rows, 1))


def _one_after_the_other(
    means: Callable[[Array, Tiles], Array], queries: Float[Array, "b m q n d"], tiles: Tiles, parts: int
) -> Float[Array, "b m q n d"]:
    """`means` of so many parts of the tiles, written over their queries: results of its own would be memory that is
    waiting all the time."""
    length = queries.shape[1] // parts

    def step(i: Array, x: Array) -> Array:
        q = lax.dynamic_slice_in_dim(x, i * length, length, axis=1)
        return lax.dynamic_update_slice_in_dim(x, means(q, tiles.part(i, parts)), i * length, axis=1)

    return lax.fori_loop(0, parts, step, queries)


def _one_of(arrays: tuple[Array, ...], number: int) -> Callable[[Places], Array]:
    """Its rows."""

    def rows(place: Places) -> Array:
        if len(arrays) == 1:  # rows first: no loop keeps a copy of the keys and one of the values
            return _taken(arrays[0], place, 2)[..., number, :, :]
        return _taken(arrays[number], place, 2)

    return rows


def _in_tiles(rows_of: Callable[[Places], Array], places: tuple[Places, Places]) -> Float[Array, "b m q n d"]:
    """Tiles with their queries, keys or values."""
    x = _taken(rows_of(places[0].ravel()), places[1].ravel(), 3)
    batch, channels, ((t, height), (u, width)) = x.shape[0], x.shape[4:], (place.shape for place in places)
    x = x.reshape(batch, -1, t, height, u, width, *channels).transpose(0, 1, 2, 4, 3, 5, 6, 7)
    return x.reshape(batch, -1, height * width, *channels)


def _grids(x: Float[Array, "b h w *m"], dilation: int) -> Float[Array, "b r _h _w *m"]:
    """The r = dilation^2 grids of a map, which have zeros in place of the pixels that some lack."""
    batch, height, width = x.shape[:3]
    bottom, right = -height % dilation, -width % dilation
    if bottom or right:
        x = jnp.pad(x, ((0, 0), (0, bottom), (0, right), *[(0, 0)] * (x.ndim - 3)))
    x = x.reshape(batch, (height + bottom) // dilation, dilation, (width + right) // dilation, dilation, *x.shape[3:])
    x = x.transpose(0, 2, 4, 1, 3, *range(5, x.ndim))
    return x.reshape(batch, dilation * dilation, *x.shape[3:])


def _taken(x: Array, place: Places, axis: int) -> Array:
    is_known = isinstance(place, np.ndarray)
    if is_known and len(place) == x.shape[axis] and (place == np.arange(len(place))).all():
        return x
    return jnp.take(x, place, axis=axis, mode="clip")


def _seen(rows: Axis, columns: Axis, dilation: int) -> tuple[Bool[np.ndarray, "r t i j"], Bool[np.ndarray, "r u k l"]]:
    """`seen` of both axes for each grid."""
    grid = np.arange(dilation * dilation)
    return rows.seen[(grid // dilation) % len(rows.seen)], columns.seen[(grid % dilation) % len(columns.seen)]
