"""Multi-scale deformable attention for GPUs: few kernels of many rows, where a CPU wants a loop of few rows.

Axes: q queries, n heads, d channels of a head, k samples (points of all levels).
"""

import math

import jax
import jax.numpy as jnp
from jax import Array, lax

from oneformer_jax.models.deformable_attention import Shapes, corners, rows_of, sample_gradients, summed_by

SAMPLES_A_STEP = 4


def gathers_at_once(value: Array, shapes: Shapes, locations: Array, weights: Array) -> Array:
    """`ops.deformable_attention`, which says what the arguments are."""
    return summed_by(_weighted_samples, value, shapes, locations, weights)


@jax.custom_vjp
def _weighted_samples(table: Array, upper_left: Array, below: Array, fraction: Array, weights: Array) -> Array:
    """Sum over k of weights[k] (k, q, n) times the bilinear samples: (q, n, d).

    A loop whose steps are one kernel of sixteen gathers each. As one sum over all gathered rows, XLA would write the
    rows down: 48 times the result.
    """
    n, together = weights.shape[2], math.gcd(len(weights), SAMPLES_A_STEP)

    def add(total: Array, step: list[Array]) -> tuple[Array, None]:
        for sample in zip(*step, strict=True):
            for row, coefficient in corners(n, *sample):
                total = total + coefficient[..., None] * rows_of(table, row)
        return total, None

    total = jnp.zeros((*weights.shape[1:], table.shape[1]), weights.dtype)
    steps = [x.reshape(-1, together, *x.shape[1:]) for x in (upper_left, below, fraction, weights)]
    return lax.scan(add, total, steps)[0]


def _forward(*inputs: Array) -> tuple[Array, tuple[Array, ...]]:
    return _weighted_samples(*inputs), inputs


def _backward(residuals: tuple[Array, ...], cotangent: Array) -> tuple[Array, None, None, Array, Array]:
    """One scatter-add of all rows for the table, one gather of them for the rest."""
    table, upper_left, below, fraction, weights = residuals
    fraction = fraction.swapaxes(0, 1)
    found = corners(weights.shape[2], upper_left, below[:, None, None], fraction, weights)
    rows, coefficients = (jnp.stack(x) for x in zip(*found, strict=True))
    spread = cotangent[None, None]
    table_gradient = jnp.zeros(table.shape, cotangent.dtype)
    table_gradient = table_gradient.at[rows].add(coefficients[..., None] * spread, mode="promise_in_bounds")
    products = jnp.sum(spread * rows_of(table, rows), axis=-1)
    fraction_gradient, weights_gradient = sample_gradients(products, fraction, weights)
    return table_gradient.astype(table.dtype), None, None, fraction_gradient.swapaxes(0, 1), weights_gradient


_weighted_samples.defvjp(_forward, _backward)
