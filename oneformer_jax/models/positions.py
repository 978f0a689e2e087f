"""Where things are in an image: sine position encodings and reference points.

Axes: s pixels of all levels; the others are named after the arguments.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

TEMPERATURE = 10000.0


def sine_positions(height: int, width: int, dim: int) -> Float[Array, "height width dim"]:
    """Sine position encoding (Carion et al. 2020) of a whole map: the first half of the channels encodes y, the rest x.

    Coordinates count from 1, normalised to 2 pi at the last row and column. Only the two axes are constants; the map
    is broadcast from them.
    """
    rows = np.broadcast_to(_sine_axis(height, dim // 2)[:, None], (height, 1, dim // 2))
    columns = np.broadcast_to(_sine_axis(width, dim // 2)[None], (1, width, dim // 2))
    shape = (height, width, dim // 2)
    return jnp.concatenate([jnp.broadcast_to(rows, shape), jnp.broadcast_to(columns, shape)], axis=-1)


def _sine_axis(length: int, dim: int) -> Float[np.ndarray, "length dim"]:
    coordinate = np.arange(1, length + 1) / (length + 1e-6) * 2 * math.pi
    channel = np.arange(dim)
    angle = coordinate[:, None] / (TEMPERATURE ** (2 * (channel // 2) / dim))[None]
    return np.where(channel[None] % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)


def reference_points(shapes: tuple[tuple[int, int], ...]) -> Float[np.ndarray, "s 2"]:
    """Pixel centres (x, y) in [0, 1] of all levels, in the order of the flattened tokens."""
    levels = []
    for height, width in shapes:
        y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
        levels.append(np.stack([x.ravel(), y.ravel()], axis=-1))
    return np.concatenate(levels).astype(np.float32)
