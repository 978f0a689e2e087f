"""Core of multi-scale deformable attention (Zhu et al. 2021, equation 3): bilinear samples of every level, summed by weight."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

Shapes = tuple[tuple[int, int], ...]


def sample(
    value: Float[Array, "b s n d"], shape: tuple[int, int], locations: Float[Array, "b q n p 2"]
) -> Float[Array, "b q n p d"]:
    h, w = shape
    b, _, n, d = value.shape
    padded = jnp.pad(value.reshape(b, h, w, n, d), ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0)))
    x = jnp.clip(locations[..., 0] * w - 0.5, -1, w)
    y = jnp.clip(locations[..., 1] * h - 0.5, -1, h)
    x0 = jnp.clip(jnp.floor(x).astype(jnp.int32), -1, w - 1)
    y0 = jnp.clip(jnp.floor(y).astype(jnp.int32), -1, h - 1)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    i = jnp.arange(b)[:, None, None, None]
    j = jnp.arange(n)[None, None, :, None]
    i, j, x0, y0 = jnp.broadcast_arrays(i, j, x0, y0)
    v00, v01 = padded[i, y0 + 1, x0 + 1, j], padded[i, y0 + 1, x0 + 2, j]
    v10, v11 = padded[i, y0 + 2, x0 + 1, j], padded[i, y0 + 2, x0 + 2, j]
    return (v00 * (1 - fx) + v01 * fx) * (1 - fy) + (v10 * (1 - fx) + v11 * fx) * fy


def deformable_attention(
    value: Float[Array, "b s n d"],
    shapes: Shapes,
    locations: Float[Array, "b q n l p 2"],
    weights: Float[Array, "b q n l p"],
) -> Float[Array, "b q n*d"]:
    b, q = locations.shape[:2]
    start = 0
    total = jnp.zeros((b, q, value.shape[2], value.shape[3]), value.dtype)
    for level, (h, w) in enumerate(shapes):
        sampled = sample(value[:, start : start + h * w], (h, w), locations[:, :, :, level])
        total = total + jnp.einsum("bqnpd,bqnp->bqnd", sampled, weights[:, :, :, level])
        start += h * w
    return total.reshape(b, q, -1)
