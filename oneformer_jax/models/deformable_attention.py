"""Multi-scale deformable attention (Zhu et al. 2021, equation 3) as a weighted sum of gathered rows.

Every sample is four rows of one table times four coefficients. Only the sum has a derivative of its own; the arithmetic
around it is left to autodiff. The sum here, in loops, is the one for CPU; `models.gpu` has another.

Axes: s pixels of all levels, q queries, n heads, d channels of a head, k samples (points of all levels), h w pixels of
a level.
"""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Shapes = tuple[tuple[int, int], ...]
Sum = Callable[[Array, Array, Array, Array, Array], Array]
"""From the rows of the table, what `cells` returns and the weights (k, q, n) to the sums (q, n, d)."""


def weighted_gathers(value: Array, shapes: Shapes, locations: Array, weights: Array) -> Array:
    """`ops.deformable_attention`, which says what the arguments are, for CPU."""
    return summed_by(_weighted_samples, value, shapes, locations, weights)


def summed_by(add_up: Sum, value: Array, shapes: Shapes, locations: Array, weights: Array) -> Array:
    """`ops.deformable_attention` with the weighted sum of an image's samples computed by `add_up`."""

    # vmap keeps the batch a batch dimension of the gathers: a batch sharded over devices stays where it is.
    def one_image(value: Array, locations: Array, weights: Array) -> Array:
        q, n, *_ = weights.shape
        flat_weights = jnp.transpose(weights, (2, 3, 0, 1)).reshape(-1, q, n)
        return add_up(_padded_rows(shapes, value), *_cells(shapes, locations), flat_weights)

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


def _cells(shapes: Shapes, locations: Array) -> tuple[Array, Array, Array]:
    """Which pixels each sample lies between. Levels and points become one axis k.

    Returns the table row of the upper left pixel (k, q, n), how far that row is from the row below it (k,), and the
    position between the pixels, x and y in [0, 1]: (k, 2, q, n).
    """
    q, n, _, points, _ = locations.shape
    size = np.repeat(np.array(shapes, np.int32)[:, ::-1], points, axis=0)[..., None, None]
    stride = size[:, 0] + 2
    areas = [(h + 2) * (w + 2) for h, w in shapes]
    start = np.repeat(np.cumsum([0, *areas[:-1]], dtype=np.int32), points)[:, None, None]

    coordinate = jnp.transpose(locations, (2, 3, 4, 0, 1)).reshape(-1, 2, q, n) * size.astype(np.float32) - 0.5
    # What reaches no pixel is put on the border. The cell is in range also where the coordinate is not a number.
    coordinate = jnp.where((coordinate < -1) | (coordinate >= size), -1.0, coordinate)
    cell = jnp.clip(jnp.floor(coordinate).astype(jnp.int32), -1, size - 1)
    x, y = cell[:, 0] + 1, cell[:, 1] + 1
    upper_left = (start + y * stride + x) * n + np.arange(n, dtype=np.int32)[None, None, :]
    return jnp.asarray(upper_left), jnp.asarray(stride[:, 0, 0] * n), coordinate - cell


@jax.custom_vjp
def _weighted_samples(table: Array, upper_left: Array, below: Array, fraction: Array, weights: Array) -> Array:
    """Sum over k of weights[k] (k, q, n) times the bilinear samples: (q, n, d).

    A loop over k whose step reads finished arrays: XLA for CPU makes it one pass of gathers, products and sums.
    Unrolled, its fusions swallow the computation of the cells and repeat it for every channel, many times as slow.
    """
    n = weights.shape[2]

    def add(total: Array, step: tuple[Array, Array, Array, Array]) -> tuple[Array, None]:
        upper_left, below, fraction, weights = step
        for row, coefficient in corners(n, upper_left, below, fraction, weights):
            total = total + coefficient[..., None] * rows_of(table, row)
        return total, None

    total = jnp.zeros((*weights.shape[1:], table.shape[1]), weights.dtype)
    return lax.scan(add, total, (upper_left, below, fraction, weights))[0]


def corners(
    n: int, upper_left: Array, below: Array, fraction: Array, weights: Array
) -> tuple[tuple[Array, Array], ...]:
    """Row and coefficient (..., q, n) of the four pixels around each sample, the upper two first, left before right.

    x and y of `fraction` lead its axes.
    """
    fx, fy = fraction
    lower_left = upper_left + below
    return (
        (upper_left, weights * (1 - fy) * (1 - fx)),
        (upper_left + n, weights * (1 - fy) * fx),
        (lower_left, weights * fy * (1 - fx)),
        (lower_left + n, weights * fy * fx),
    )


def sample_gradients(products: Iterable[Array], fraction: Array, weights: Array) -> tuple[Array, Array]:
    """Gradients of `fraction` (2, ..., q, n) and of weights.

    `products` (..., q, n) are those of the cotangent with the pixels around each sample, in the order of `corners`.
    """
    (upper_left, upper_right, lower_left, lower_right), (fx, fy) = products, fraction
    upper = upper_left + fx * (upper_right - upper_left)
    lower = lower_left + fx * (lower_right - lower_left)
    along_x = upper_right - upper_left + fy * (lower_right - lower_left - upper_right + upper_left)
    along_y = lower - upper
    return weights[None] * jnp.stack([along_x, along_y]), upper + fy * along_y


def rows_of(table: Array, row: Array) -> Array:
    """The rows of these numbers, which exist."""
    return table.at[row].get(mode="promise_in_bounds")


def _weighted_samples_forward(*inputs: Array) -> tuple[Array, tuple[Array, ...]]:
    return _weighted_samples(*inputs), inputs


def _weighted_samples_backward(
    residuals: tuple[Array, ...], cotangent: Array
) -> tuple[Array, None, None, Array, Array]:
    """Two loops (one that does both is slower): scatter-adds of rows for the table, gathers again for the rest."""
    table, *steps = residuals
    n = cotangent.shape[1]

    def scatter(gradient: Array, step: list[Array]) -> tuple[Array, None]:
        for row, coefficient in corners(n, *step):
            gradient = gradient.at[row].add(coefficient[..., None] * cotangent, mode="promise_in_bounds")
        return gradient, None

    def gather(_: None, step: list[Array]) -> tuple[None, tuple[Array, Array]]:
        fraction, weights = step[2:]
        products = tuple(cotangent * rows_of(table, row) for row, _ in corners(n, *step))
        # One reduction over channels for all four: a lone float sum is a serial chain that nothing overlaps.
        zeros = (jnp.zeros((), cotangent.dtype),) * 4
        return None, sample_gradients(lax.reduce(products, zeros, _add_each, (2,)), fraction, weights)

    table_gradient = lax.scan(scatter, jnp.zeros(table.shape, cotangent.dtype), steps)[0]
    fraction_gradient, weights_gradient = lax.scan(gather, None, steps)[1]
    return table_gradient.astype(table.dtype), None, None, fraction_gradient, weights_gradient


def _add_each(left: tuple[Array, ...], right: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(a + b for a, b in zip(left, right, strict=True))


_weighted_samples.defvjp(_weighted_samples_forward, _weighted_samples_backward)
