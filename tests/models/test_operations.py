"""Operations are those of a closed form, in loops, branches and what a program calls."""

import jax
import jax.numpy as jnp
import pytest

from oneformer_jax.models.operations import operations

NHWC = ("NHWC", "HWIO", "NHWC")
PRODUCT = 2 * 4 * 5


def times(row: jax.Array) -> jax.Array:
    """4 numbers by a matrix to 5."""
    return row @ jnp.ones((4, 5))


@pytest.mark.parametrize(
    ("function", "shape", "count"),
    [
        (lambda x: jnp.exp(x) + 1, (8, 6), 0),
        (times, (3, 4), 3 * PRODUCT),
        (lambda x: jnp.einsum("bij,bjk->bik", x, x), (2, 7, 7), 2 * 2 * 7**3),
        (lambda x: jax.lax.map(times, x), (6, 4), 6 * PRODUCT),
        (lambda x: jax.lax.fori_loop(0, 7, lambda _, y: y + times(y[:4]), x), (5,), 7 * PRODUCT),
        (lambda x: jax.lax.cond(x[0] > 0, times, lambda x: jnp.zeros(5), x), (4,), PRODUCT),
        (jax.jit(jax.checkpoint(times)), (4,), PRODUCT),
        (jax.grad(lambda x: times(x).sum()), (4,), 2 * PRODUCT),
    ],
    ids=["none", "product", "batch", "map", "loop", "branches", "calls", "gradient"],
)
def test_products(function, shape: tuple[int, ...], count: int) -> None:
    assert operations(jax.make_jaxpr(function)(jnp.ones(shape))) == count


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions(groups: int) -> None:
    def convolved(x: jax.Array) -> jax.Array:
        kernel = jnp.ones((3, 5, 2 // groups, 4))
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=groups
        )

    traced = jax.make_jaxpr(convolved)(jnp.ones((3, 8, 6, 2)))
    assert operations(traced) == 2 * 3 * 8 * 6 * 4 * (3 * 5 * 2 // groups)
