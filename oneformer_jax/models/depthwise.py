"""Depthwise convolution: every channel has a small image of its own as kernel.

Axes: b images, h w pixels, c channels, s the side of a kernel, an odd number.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from oneformer_jax.models.precision import widened


@jax.custom_vjp
def shifted_sums(x: Float[Array, "b h w c"], kernel: Float[Array, "s s 1 c"]) -> Float[Array, "b h w c"]:
    """The sum over a kernel's places of the shifted image times the numbers there, not rounded below float32.

    XLA for CPU computes a convolution in so many groups several times as slowly, and its gradients even more so. A
    loop over the rows of the kernel compiles faster than all its places written out.
    """
    return _sums(x, kernel)


def _sums(x: Array, kernel: Array) -> Array:
    (height, width), side = x.shape[1:3], kernel.shape[0]
    padded, kernel = widened(_padded(x, side)), widened(kernel)

    def add_row(i: Array, sums: Array) -> Array:
        rows, numbers = lax.dynamic_slice_in_dim(padded, i, height, axis=1), kernel[i, :, 0]
        for j in range(side):
            sums = sums + rows[:, :, j : j + width] * numbers[None, None, None, j]
        return sums

    return lax.fori_loop(0, side, add_row, jnp.zeros(x.shape, padded.dtype)).astype(x.dtype)


def _padded(x: Array, side: int) -> Array:
    border = (side // 2, side // 2)
    return jnp.pad(x, ((0, 0), border, border, (0, 0)))


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _sums(x, kernel), (x, kernel)


def _backward(factors: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = factors
    (height, width), side = x.shape[1:3], kernel.shape[0]
    padded = widened(_padded(x, side))

    def add_row(y: Array, sums: Array) -> Array:
        rows = lax.dynamic_slice_in_dim(padded, y, side, axis=1)
        row = widened(lax.dynamic_slice_in_dim(cotangent, y, 1, axis=1))
        places = [jnp.sum(rows[:, :, j : j + width] * row, axis=(0, 2)) for j in range(side)]
        return sums + jnp.stack(places, axis=1)

    of_kernel = lax.fori_loop(0, height, add_row, jnp.zeros((side, side, x.shape[-1]), padded.dtype))
    return _sums(cotangent, kernel[::-1, ::-1]), of_kernel[:, :, None].astype(kernel.dtype)


shifted_sums.defvjp(_forward, _backward)


def grouped_convolution(x: Float[Array, "b h w c"], kernel: Float[Array, "s s 1 c"]) -> Float[Array, "b h w c"]:
    """The same as XLA's convolution, with a group for each channel."""
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=x.shape[-1]
    )
