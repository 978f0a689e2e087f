"""Normalisation layers whose statistics keep their digits in float32.

Axes: b images, h w pixels, g groups, c channels of a group.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from oneformer_jax.models.precision import widened

EPSILON = 1e-5

# Two-pass variance: E[x^2] - E[x]^2 loses digits when the mean is large.
layer_norm = partial(nn.LayerNorm, epsilon=EPSILON, use_fast_variance=False)


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He 2018) over maps.

    The mean is taken in two stages: a single reduction over a large map loses digits in some runtimes, enough to flip
    bits of the attention masks that depend on it.
    """

    num_groups: int = 32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        grouped = widened(x).reshape(*x.shape[:-1], self.num_groups, channels // self.num_groups)
        centred = grouped - _group_mean(grouped)
        normalised = centred / jnp.sqrt(_group_mean(centred * centred) + EPSILON)
        return normalised.reshape(x.shape) * scale[None, None, None] + bias[None, None, None]


def _group_mean(x: Float[Array, "b h w g c"]) -> Float[Array, "b 1 1 g 1"]:
    return mean(mean(x, axes=(2, 4)), axes=(1,))


def mean(x: Float[Array, "b _h _w g _c"], *, axes: tuple[int, ...]) -> Float[Array, "b _p _q g _d"]:
    """Over some axes, which stay with length 1."""
    return x.mean(axes, keepdims=True)
