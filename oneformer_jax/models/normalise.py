"""Pixels to network input, on the device: images travel as uint8."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8


def normalise(
    images: UInt8[Array, "b h w 3"],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    sizes: Int[Array, "b 2"] | None = None,
) -> Float[Array, "b h w 3"]:
    """(pixel - mean) / std per channel on the 0..255 scale, float32.

    `sizes` are the (height, width) that hold image; the padding beyond them becomes 0 after normalisation, as the
    original pads at inference.
    """
    scale = 1.0 / jnp.asarray(std, float)[None, None, None, :]
    normalised = (images.astype(float) - jnp.asarray(mean, float)[None, None, None, :]) * scale
    if sizes is None:
        return normalised
    rows = jnp.arange(images.shape[1])[None, :] < sizes[:, :1]
    columns = jnp.arange(images.shape[2])[None, :] < sizes[:, 1:]
    return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], normalised, 0.0)
