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

from functools import lru_cache, partial
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from oneformer_jax.models import ops
from oneformer_jax.models.layers import Dropout

Borders = Literal["shifted", "zero_padded"]
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
    q: Float[Array, "b h w n d"],
    k: Float[Array, "b h w n d"],
    v: Float[Array, "b h w n d"],
    *,
    kernel: int,
    dilation: int = 1,
    borders: Borders = "shifted",
    table: Float[Array, "n side side"] | None = None,
) -> Float[Array, "b h w n d"]:
    """Means of the values of a pixel's neighbourhood, weighted by the softmax of query . key / sqrt(d).

    `table`, of 2 kernel - 1 a side, is added to the logits by the distance of the key, in steps of the dilation. With
    "zero_padded" the zeros beyond the borders take part with the logit 0. Raises ValueError: a shifted window is larger
    than the map.
    """
    size, batch, channels = q.shape[1:3], q.shape[0], q.shape[3:]
    axes = [cut(length, kernel, dilation, borders) for length in size]
    rows, columns = axes
    tiles = (len(rows.queries), len(columns.queries))

    def in_tiles(x: Array, before: int, places: tuple[np.ndarray, np.ndarray]) -> Array:
        """Tiles with their queries or keys: b m q n d."""
        x = _grids(x, dilation)
        if before:
            x = jnp.pad(x, ((0, 0), (0, 0), (before, before), (before, before), (0, 0), (0, 0)))
        for axis, place in enumerate(places, 2):
            x = _taken(x, place.ravel(), axis)
        height, width = (place.shape[1] for place in places)
        x = x.reshape(batch, -1, tiles[0], height, tiles[1], width, *channels).transpose(0, 1, 2, 4, 3, 5, 6, 7)
        return x.reshape(batch, -1, height * width, *channels)

    q = in_tiles(q, 0, (rows.queries, columns.queries))
    k, v = (in_tiles(x, rows.before, (rows.keys, columns.keys)) for x in (k, v))
    bias = None
    if table is not None:
        index = rows.offsets[:, None, :, None] * (2 * kernel - 1) + columns.offsets[None, :, None, :]
        flat = table.reshape(table.shape[0], -1)
        bias = jnp.take(flat, index.ravel(), axis=1, mode="clip").reshape(-1, q.shape[2], k.shape[2])
    x = ops.attend(
        (q, k, v), Dropout(0.0, True), scale=channels[-1] ** -0.5, bias=bias, blocked=_unseen(rows, columns, dilation)
    )
    heights = (rows.queries.shape[1], columns.queries.shape[1])
    x = x.reshape(batch, dilation * dilation, *tiles, *heights, *channels).transpose(0, 1, 2, 4, 3, 5, 6, 7)
    x = x.reshape(batch, dilation * dilation, tiles[0] * heights[0], tiles[1] * heights[1], *channels)
    for axis, cuts in enumerate(axes, 2):
        x = _taken(x, cuts.place, axis)
    x = x.reshape(batch, dilation, dilation, rows.rows, columns.rows, *channels).transpose(0, 3, 1, 4, 2, 5, 6)
    return x.reshape(batch, rows.rows * dilation, columns.rows * dilation, *channels)[:, : size[0], : size[1]]


def _grids(x: Float[Array, "b h w n d"], dilation: int) -> Float[Array, "b r _h _w n d"]:
    """The r = dilation^2 grids of a map, which have zeros in place of the pixels that some lack."""
    batch, height, width = x.shape[:3]
    bottom, right = -height % dilation, -width % dilation
    if bottom or right:
        x = jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0), (0, 0)))
    x = x.reshape(batch, (height + bottom) // dilation, dilation, (width + right) // dilation, dilation, *x.shape[3:])
    x = x.transpose(0, 2, 4, 1, 3, 5, 6)
    return x.reshape(batch, dilation * dilation, *x.shape[3:])


def _taken(x: Array, place: np.ndarray, axis: int) -> Array:
    if len(place) == x.shape[axis] and (place == np.arange(len(place))).all():
        return x
    return jnp.take(x, place, axis=axis, mode="clip")


def _unseen(rows: Axis, columns: Axis, dilation: int) -> Bool[Array, "1 m q k"]:
    """Which keys of its tile a query does not attend to."""
    by_rows = rows.seen[:, None, :, None, :, None, :, None]
    by_columns = columns.seen[None, :, None, :, None, :, None, :]
    seen = jnp.asarray(by_rows) & jnp.asarray(by_columns)
    seen = jnp.broadcast_to(seen, (dilation, dilation, *seen.shape[2:]))
    _, _, *tiles, i, j, keys_of_rows, keys_of_columns = seen.shape
    return ~seen.reshape(1, dilation * dilation * tiles[0] * tiles[1], i * j, keys_of_rows * keys_of_columns)
