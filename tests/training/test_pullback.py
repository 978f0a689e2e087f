"""A pullback without the parameters that it was made at, and without constants."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oneformer_jax.training.pullback import Pullback

TABLE = np.arange(12, dtype=np.float32).reshape(3, 4)
PARAMS = {"kernel": jnp.full((4, 5), 2.0), "bias": jnp.ones(5), "other": jnp.ones((5, 4))}


def network(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jnp.tanh((x[None] * TABLE) @ params["kernel"] + params["bias"][None]) @ params["other"]


@jax.jit
def forward(params: dict[str, jax.Array], x: jax.Array) -> tuple[jax.Array, Pullback]:
    outputs, pullback = jax.vjp(network, params, x)
    return outputs, Pullback.without(params, pullback)


@jax.jit
def backward(params: dict[str, jax.Array], pullback: Pullback, cotangents: jax.Array) -> Any:
    return pullback(params, cotangents)


def test_two_programs_differentiate_as_one_does() -> None:
    x, cotangents = jnp.linspace(-1.0, 1.0, 4), jnp.linspace(0.0, 1.0, 12).reshape(3, 4)
    outputs, pullback = forward(PARAMS, x)
    expected = jax.grad(lambda *inputs: jnp.sum(network(*inputs) * cotangents), argnums=(0, 1))(PARAMS, x)
    for found, wanted in zip(
        jax.tree.leaves(backward(PARAMS, pullback, cotangents)), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    assert outputs.shape == (3, 4)

    kept = {leaf.shape for leaf in jax.tree.leaves(pullback)}
    assert kept == {(3, 4), (3, 5)}, "what the products multiply, and neither kernel"
