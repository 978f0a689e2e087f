"""Convolutions whose gradients XLA computes slowly on CPU, as matrix products.

Axes: b images, h w pixels, c d channels in and out.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from oneformer_jax.models.linear import Initializer
from oneformer_jax.models.precision import as_kernel

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
    """The sum over a kernel's nine places of the shifted image times the matrix there."""
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
