"""Interpolation of maps as products with constant matrices.

A resize along one axis is linear, so two small matrices do it: exactly PyTorch's `align_corners=False` result, for any
pair of sizes, with the batch size left open when the function is exported.

Axes: b images, h w and p q sizes before and after, c channels, n distances.
"""

from functools import lru_cache
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Method = Literal["bilinear", "bicubic"]
BICUBIC_A = -0.75  # PyTorch's; jax.image uses -0.5


def resize(x: Float[Array, "b h w c"], size: tuple[int, int], method: Method = "bilinear") -> Float[Array, "b p q c"]:
    """Maps `x` at `size`, half-pixel centres, edges repeated, no antialiasing."""
    height, width = x.shape[1:3]
    if height != size[0]:
        x = jnp.einsum("ph,bhwc->bpwc", interpolation_matrix(height, size[0], method), x)
    if width != size[1]:
        x = jnp.einsum("qw,bpwc->bpqc", interpolation_matrix(width, size[1], method), x)
    return x


@lru_cache(maxsize=256)
def interpolation_matrix(source: int, target: int, method: Method = "bilinear") -> Float[np.ndarray, "target source"]:
    """Weights (target, source) float32: row i mixes the source samples that make target sample i."""
    centre = (np.arange(target) + 0.5) * source / target - 0.5
    if method == "bilinear":
        centre = centre.clip(min=0.0)
    base = np.floor(centre).astype(int)
    taps = (0, 1) if method == "bilinear" else (-1, 0, 1, 2)
    kernel = _triangle if method == "bilinear" else _cubic
    matrix = np.zeros((target, source))
    for tap in taps:
        columns = (base + tap).clip(0, source - 1)
        np.add.at(matrix, (np.arange(target), columns), kernel(np.abs(centre - base - tap)))
    return matrix.astype(np.float32)


def _triangle(distance: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return 1 - distance


def _cubic(distance: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Cubic convolution (Keys 1981)."""
    a, d = BICUBIC_A, distance
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, far)
