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
        index, steps, coefficients = _corners(shapes, locations, weights)
        return _weighted_rows(_padded_rows(shapes, value), index, steps, coefficients)

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


def _corners(shapes: Shapes, locations: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Where the four neighbours of each sample lie in the table, and how much each of them counts.

    Levels and points become one axis k. Returns the row of the upper left neighbour (k, q, n), the steps from there to
    all four (k, 4) and their coefficients (k, 4, q, n).
    """
    _, n, _, p, _ = locations.shape
    index, steps, coefficients, start = [], [], [], 0
    for level, (h, w) in enumerate(shapes):
        x0, fx = _cell(jnp.moveaxis(locations[:, :, level, :, 0], 2, 0) * w - 0.5, w)
        y0, fy = _cell(jnp.moveaxis(locations[:, :, level, :, 1], 2, 0) * h - 0.5, h)
        stride = w + 2
        index.append((start + y0 * stride + x0) * n + jnp.arange(n, dtype=jnp.int32)[None, None, :])
        steps += [[0, n, stride * n, (stride + 1) * n]] * p
        bilinear = jnp.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], axis=1)
        coefficients.append(bilinear * jnp.moveaxis(weights[:, :, level], 2, 0)[:, None])
        start += (h + 2) * stride
    return jnp.concatenate(index), jnp.array(steps, jnp.int32), jnp.concatenate(coefficients)


def _cell(coordinate: Array, size: int) -> tuple[Array, Array]:
    """Integer and fractional part of a pixel coordinate, the integer counted from the border pixel before the first.

    What reaches no pixel is put on that border. The integer is always in range, also where the coordinate is NaN.
    """
    outside = (coordinate < -1) | (coordinate >= size)
    coordinate = jnp.where(outside, -1.0, coordinate)
    cell = jnp.clip(jnp.floor(coordinate).astype(jnp.int32), -1, size - 1)
    return cell + 1, coordinate - cell


@jax.custom_vjp
def _weighted_rows(table: Array, index: Array, steps: Array, coefficients: Array) -> Array:
    """out[q, n] = sum over k and c of coefficients[k, c, q, n] * table[index[k, q, n] + steps[k, c]].

    A loop over k, because XLA for CPU then makes one pass of the four gathers, products and sums of a step. Unrolled, or
    with the coefficients computed inside, its fusions repeat that arithmetic for every channel and take several times
    as long.
    """

    def add(total: Array, at: tuple[Array, Array, Array]) -> tuple[Array, None]:
        index, steps, coefficients = at
        for c in range(4):
            total = total + coefficients[c, :, :, None] * _rows(table, index + steps[c])
        return total, None

    total = jnp.zeros((*index.shape[1:], table.shape[1]), table.dtype)
    return lax.scan(add, total, (index, steps, coefficients))[0]


def _rows(table: Array, index: Array) -> Array:
    return table.at[index].get(mode="promise_in_bounds")


def _weighted_rows_forward(
    table: Array, index: Array, steps: Array, coefficients: Array
) -> tuple[Array, tuple[Array, Array, Array, Array]]:
    return _weighted_rows(table, index, steps, coefficients), (table, index, steps, coefficients)


def _weighted_rows_backward(
    residuals: tuple[Array, Array, Array, Array], cotangent: Array
) -> tuple[Array, None, None, Array]:
    """Gathers again for the coefficients, scatter-adds rows of d channels for the table."""
    table, index, steps, coefficients = residuals
    ones = jnp.ones(table.shape[1], table.dtype)

    def pull(gradient: Array, at: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        index, steps, coefficients = at
        products = []
        for c in range(4):
            # As a matrix product the sum over channels is vectorised; a plain sum is one serial chain of additions.
            products.append((cotangent * _rows(table, index + steps[c])) @ ones)
            gradient = gradient.at[index + steps[c]].add(
                coefficients[c, :, :, None] * cotangent, mode="promise_in_bounds"
            )
        return gradient, jnp.stack(products)

    gradient, products = lax.scan(pull, jnp.zeros_like(table), (index, steps, coefficients))
    return gradient, None, None, products


_weighted_rows.defvjp(_weighted_rows_forward, _weighted_rows_backward)
