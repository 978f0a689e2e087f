"""Linear layers and the initial distributions that the original's layers start from."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from oneformer_jax.models.precision import as_kernel

Initializer = Callable[..., Any]

Dense = partial(nn.Dense, promote_dtype=as_kernel)

# PyTorch's default for linear and convolution weights: uniform within 1 / sqrt(fan_in).
fan_in_uniform: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
xavier_uniform: Initializer = nn.initializers.xavier_uniform()
# detectron2's "xavier" fill, which is uniform within sqrt(3 / fan_in).
fan_in_xavier: Initializer = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


def uniform_bias(fan_in: int) -> Initializer:
    """PyTorch's default for biases: uniform within 1 / sqrt(fan_in)."""
    bound = fan_in**-0.5

    def initialize(rng: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(rng, shape, dtype, -bound, bound)

    return initialize


def linear(
    x: Float[Array, "*n c"], features: int, *, name: str, kernel_init: Initializer = fan_in_uniform
) -> Float[Array, "*n d"]:
    """A `Dense` layer of the calling module whose bias starts as PyTorch's does."""
    return Dense(features, kernel_init=kernel_init, bias_init=uniform_bias(x.shape[-1]), name=name)(x)


class MLP(nn.Module):
    """`num_layers` linear layers with ReLU between them; the hidden ones are `hidden` wide."""

    hidden: int
    features: int
    num_layers: int

    @nn.compact
    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n d"]:
        for i in range(self.num_layers - 1):
            x = nn.relu(linear(x, self.hidden, name=f"layer_{i}"))
        return linear(x, self.features, name=f"layer_{self.num_layers - 1}")
