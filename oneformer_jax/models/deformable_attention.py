"""Core of multi-scale deformable attention (Zhu et al. 2021, equation 3): bilinear samples of every level, summed by weight.

Every sample is four rows of one table times four coefficients, so the whole operation is one weighted sum of gathered
rows. Only that sum has a derivative of its own (`_weighted_rows`); the arithmetic around it is left to autodiff.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

Shapes = tuple[tuple[int, int], ...]


def deformable_attention(
    value: Float[Array, "b s n d"],
    shapes: Shapes,
    locations: Float[Array, "b q n l p 2"],
    weights: Float[Array, "b q n l p"],
) -> Float[Array, "b q n*d"]:
    """Sample every level of `value` at `locations`, bilinearly, and sum the samples of a query by `weights`.

    Args:
        value: levels flattened row by row and concatenated, `n` heads of `d` channels, float32.
        shapes: static (height, width) of each level; the areas add up to `s`.
        locations: (x, y) as a fraction of the level: (0, 0) is the outer corner of the first pixel and (1, 1) that of
            the last one. Pixels outside a level count as zero (`grid_sample` with `align_corners=False`).
        weights: attention of each sample; they need not sum to one.

    Returns:
        The sums, channels of head 0 first.

    Raises:
        ValueError: `shapes` does not describe `value` or the level axis of `locations`.
    """
    if sum(h * w for h, w in shapes) != value.shape[1] or len(shapes) != locations.shape[3]:
        raise ValueError(f"levels {shapes} do not fit values {value.shape} and locations {locations.shape}")

    # vmap keeps the batch a batch dimension of the gathers: a batch sharded over devices stays where it is.
    def one_image(value: Array, locations: Array, weights: Array) -> Array:
        return _weighted_rows(_padded_rows(shapes, value), *_corners(shapes, locations, weights))

    out = jax.vmap(one_image)(value, locations, weights)
    return out.reshape(*out.shape[:2], -1)


def _padded_rows(shapes: Shapes, value: Array) -> Array:
    """(s, n, d) -> rows of d channels, in the order of levels, y, x, heads; every level with a border of zeros.

    The border stands for all that is outside and saves a mask for each corner.
    """
    _, n, d = value.shape
    levels, start = [], 0
    for h, w in shapes:
        level = value[start : start + h * w].reshape(h, w, n, d)
        levels.append(jnp.pad(level, ((1, 1), (1, 1), (0, 0), (0, 0))).reshape(-1, d))
        start += h * w
    return jnp.concatenate(levels)


def _corners(shapes: Shapes, locations: Array, weights: Array) -> tuple[Array, Array]:
    """The rows of the four neighbours of each sample and how much each of them counts, both (k, 4, q, n).

    Levels and points are one axis k.
    """
    _, n, _, p, _ = locations.shape
    rows, coefficients, start = [], [], 0
    for level, (h, w) in enumerate(shapes):
        x0, fx = _cell(jnp.moveaxis(locations[:, :, level, :, 0], 2, 0) * w - 0.5, w)
        y0, fy = _cell(jnp.moveaxis(locations[:, :, level, :, 1], 2, 0) * h - 0.5, h)
        stride = w + 2
        upper_left = (start + y0 * stride + x0) * n + jnp.arange(n, dtype=jnp.int32)[None, None, :]
        rows.append(jnp.stack([upper_left + step * n for step in (0, 1, stride, stride + 1)], axis=1))
        bilinear = jnp.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], axis=1)
        coefficients.append(bilinear * jnp.moveaxis(weights[:, :, level], 2, 0)[:, None])
        start += (h + 2) * stride
    return jnp.concatenate(rows), jnp.concatenate(coefficients)


def _cell(coordinate: Array, size: int) -> tuple[Array, Array]:
    """Integer and fractional part of a pixel coordinate, the integer counted from the border pixel before the first.

    What reaches no pixel is put on that border. The integer is in range also where the coordinate is not a number.
    """
    outside = (coordinate < -1) | (coordinate >= size)
    coordinate = jnp.where(outside, -1.0, coordinate)
    cell = jnp.clip(jnp.floor(coordinate).astype(jnp.int32), -1, size - 1)
    return cell + 1, coordinate - cell


@jax.custom_vjp
def _weighted_rows(table: Array, rows: Array, coefficients: Array) -> Array:
    """Sum over k and c of coefficients[k, c, q, n] * table[rows[k, c, q, n]]: (q, n, d).

    A loop over k whose step reads finished arrays: XLA for CPU makes it one pass of gathers, products and sums.
    Unrolled, its fusions swallow the computation of the coefficients and repeat it for every channel, several times
    as slow.
    """

    def add(total: Array, step: tuple[Array, Array]) -> tuple[Array, None]:
        for row, coefficient in zip(*step, strict=True):
            total = total + coefficient[..., None] * _take(table, row)
        return total, None

    total = jnp.zeros((*rows.shape[2:], table.shape[1]), table.dtype)
    return lax.scan(add, total, (rows, coefficients))[0]


def _take(table: Array, row: Array) -> Array:
    return table.at[row].get(mode="promise_in_bounds")


def _weighted_rows_forward(table: Array, rows: Array, coefficients: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return _weighted_rows(table, rows, coefficients), (table, rows, coefficients)


def _weighted_rows_backward(residuals: tuple[Array, Array, Array], cotangent: Array) -> tuple[Array, None, Array]:
    """Two loops: gathers again for the coefficients, scatter-adds of rows for the table (one loop is slower)."""
    table, rows, coefficients = residuals

    def dot(_: None, rows: Array) -> tuple[None, Array]:
        # One reduction over channels for the four corners: a lone float sum is a serial chain that nothing overlaps.
        products = tuple(cotangent * _take(table, row) for row in rows)
        zeros = (jnp.zeros((), table.dtype),) * len(products)
        return None, jnp.stack(lax.reduce(products, zeros, _add_each, (2,)))

    def scatter(gradient: Array, step: tuple[Array, Array]) -> tuple[Array, None]:
        row, coefficient = step
        return gradient.at[row].add(coefficient[..., None] * cotangent, mode="promise_in_bounds"), None

    corners = (rows.reshape(-1, *rows.shape[2:]), coefficients.reshape(-1, *rows.shape[2:]))
    table_gradient = lax.scan(scatter, jnp.zeros_like(table), corners)[0]
    return table_gradient, None, lax.scan(dot, None, rows)[1]


def _add_each(left: tuple[Array, ...], right: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(a + b for a, b in zip(left, right, strict=True))


_weighted_rows.defvjp(_weighted_rows_forward, _weighted_rows_backward)
