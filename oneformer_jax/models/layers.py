"""The small layers that all parts are made of, and the initial distributions that the original's layers start from.

Axes: b images, h w pixels, c channels in, d channels out, g groups of channels, n any leading axes.
"""

from collections.abc import Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from oneformer_jax.models.precision import as_kernel, widened

EPSILON = 1e-5

# PyTorch's default for linear and convolution weights: uniform within 1 / sqrt(fan_in).
fan_in_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
xavier_uniform = nn.initializers.xavier_uniform()
# detectron2's "xavier" fill, which is uniform within sqrt(3 / fan_in).
fan_in_xavier = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")


def uniform_bias(fan_in: int) -> Initializer:
    """PyTorch's default for biases: uniform within 1 / sqrt(fan_in)."""
    bound = fan_in**-0.5

    def initialize(
        key: Array, shape: Sequence[int], dtype: DTypeLike | None = None, out_sharding: object = None
    ) -> Array:
        return jax.random.uniform(key, shape, dtype or jnp.float32, -bound, bound)

    return initialize


class Dense(nn.Module):
    """A linear layer over the last axis."""

    features: int
    kernel_init: Initializer
    use_bias: bool = True
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n d"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,)) if self.use_bias else None
        x, kernel, bias = as_kernel(x, kernel, bias)
        y = x @ kernel
        return y if bias is None else y + bias.reshape(*[1] * (y.ndim - 1), -1)


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
    return jnp.mean(jnp.mean(x, axis=(2, 4), keepdims=True), axis=1, keepdims=True)


Conv = partial(nn.Conv, promote_dtype=as_kernel)


class Convolution1x1(nn.Module):
    """A convolution of one pixel."""

    features: int
    kernel_init: Initializer
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        kernel = self.param("kernel", self.kernel_init, (1, 1, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        x, kernel, bias = as_kernel(x, kernel, bias)
        y = x @ kernel[0, 0]
        return y if bias is None else y + bias[None, None, None]


class Convolution3x3(nn.Module):
    """A convolution of three by three pixels without bias; zeros around the borders keep the size."""

    features: int
    kernel_init: Initializer

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        kernel = self.param("kernel", self.kernel_init, (3, 3, x.shape[-1], self.features))
        x, kernel, _ = as_kernel(x, kernel, None)
        return convolved_3x3(x, kernel)


@jax.custom_vjp
def convolved_3x3(x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"]) -> Float[Array, "b h w d"]:
    """The sum over a kernel's nine places of the shifted image times the matrix there.

    XLA for CPU computes the kernel's gradient slowly: there it is nine products of matrices.
    """
    return _convolved(x, kernel)


def _convolved(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolved(x, kernel), (x, kernel)


def _backward(factors: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = factors
    _, of_image = jax.vjp(lambda x: _convolved(x, kernel), x)
    of_kernel = lax.platform_dependent(x, cotangent, cpu=_products_of_places, default=_kernel_gradient)
    return *of_image(cotangent), of_kernel


def _kernel_gradient(x: Array, cotangent: Array) -> Array:
    zeros = jnp.zeros((3, 3, x.shape[-1], cotangent.shape[-1]), x.dtype)
    return jax.vjp(lambda kernel: _convolved(x, kernel), zeros)[1](cotangent)[0]


def _products_of_places(x: Array, cotangent: Array) -> Array:
    """The same: for each of the nine places the product of the shifted image with the cotangent."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    places = [
        jnp.einsum("bhwc,bhwd->cd", padded[:, i : i + height, j : j + width], cotangent)
        for i in range(3)
        for j in range(3)
    ]
    return jnp.stack(places).reshape(3, 3, x.shape[-1], -1)


convolved_3x3.defvjp(_forward, _backward)
