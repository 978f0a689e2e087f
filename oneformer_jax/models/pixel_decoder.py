"""The pixel decoder: deformable attention over three levels and one top-down step to the finest map, at stride
4, or 8 where the backbone has no `res2`.

Axes: b images, h w pixels of a map (_h _w those of any level), s pixels of all levels, c channels in, d channels out.
"""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from oneformer_jax.models.config import PixelDecoderConfig
from oneformer_jax.models.layers import (
    Convolution,
    Dense,
    Dropout,
    GroupNorm,
    fan_in_xavier,
    layer_norm,
    sine_positions,
    xavier_uniform,
)
from oneformer_jax.models.ops import deformable_attention, resize
from oneformer_jax.models.precision import widened
from oneformer_jax.models.predictions import Features
from oneformer_jax.models.remat import block
from oneformer_jax.models.transformer import FeedForwardLayer

LEVELS = ("res5", "res4", "res3")  # the order of the tokens and of the decoder's layers


class PixelDecoder(nn.Module):
    """Multi-scale deformable-attention pixel decoder (Cheng et al. 2022, section 3.2; Zhu et al. 2021).

    It sees no task. Levels may have any size; the encoder has no padding masks.
    """

    config: PixelDecoderConfig

    @nn.compact
    def __call__(self, features: dict[str, Float[Array, "b _h _w _c"]], *, deterministic: bool) -> Features:
        config = self.config
        maps = [
            block(
                ConvNorm(config.conv_dim, kernel_init=xavier_uniform, use_bias=True, name=f"input_proj_{i}"),
                features[level],
            )
            for i, level in enumerate(LEVELS)
        ]
        shapes = tuple((x.shape[1], x.shape[2]) for x in maps)
        level_embed = self.param("level_embed", nn.initializers.normal(1.0), (len(LEVELS), config.conv_dim))
        positions = jnp.concatenate(
            [
                sine_positions(*shape, config.conv_dim).reshape(-1, config.conv_dim) + embed[None]
                for shape, embed in zip(shapes, level_embed, strict=True)
            ]
        )
        tokens = jnp.concatenate([x.reshape(x.shape[0], -1, x.shape[-1]) for x in maps], axis=1)
        for i in range(config.num_layers):
            layer = EncoderLayer(config, shapes, name=f"layer_{i}")
            tokens = block(layer, tokens, positions, deterministic=deterministic)

        ends = np.cumsum([height * width for height, width in shapes])
        res5, res4, res3 = (
            part.reshape(part.shape[0], *shape, part.shape[-1])
            for part, shape in zip(jnp.split(tokens, ends[:-1], axis=1), shapes, strict=True)
        )
        lateral = block(ConvNorm(config.conv_dim, name="lateral"), features[min(features)])
        finest = lateral + resize(res3, (lateral.shape[1], lateral.shape[2]))
        finest = nn.relu(block(ConvNorm(config.conv_dim, side=3, name="output"), finest))
        mask_features = Convolution(config.mask_dim, fan_in_xavier, name="mask_features")(finest)
        return Features(mask_features, (res5, res4, res3))


class ConvNorm(nn.Module):
    """A convolution of `side` by `side` pixels and group normalisation; the size is kept."""

    features: int
    kernel_init: Initializer = fan_in_xavier
    side: int = 1
    use_bias: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        x = Convolution(self.features, self.kernel_init, self.side, self.use_bias, name="conv")(x)
        return GroupNorm(name="norm")(x)


class EncoderLayer(nn.Module):
    """Deformable self-attention and feed-forward, normalised after each residual."""

    config: PixelDecoderConfig
    shapes: tuple[tuple[int, int], ...]

    @nn.compact
    def __call__(
        self, x: Float[Array, "b s c"], positions: Float[Array, "s c"], *, deterministic: bool
    ) -> Float[Array, "b s c"]:
        config = self.config
        attention = DeformableSelfAttention(config.num_heads, config.num_points, self.shapes, name="attention")
        y = attention(x + positions[None], x)
        x = layer_norm(name="norm")(x + Dropout(config.dropout, deterministic)(y))
        feed_forward = FeedForwardLayer(config.dim_feedforward, config.dropout, pre_norm=False, name="feed_forward")
        return feed_forward(x, deterministic=deterministic)


class DeformableSelfAttention(nn.Module):
    """Multi-scale deformable self-attention (Zhu et al. 2021, section 4.1): every token samples all levels around its
    own place."""

    num_heads: int
    num_points: int
    shapes: tuple[tuple[int, int], ...]

    @nn.compact
    def __call__(self, query: Float[Array, "b s c"], value: Float[Array, "b s c"]) -> Float[Array, "b s c"]:
        batch, length, width = query.shape
        heads, levels, points = self.num_heads, len(self.shapes), self.num_points
        zeros = nn.initializers.zeros
        values = Dense(width, kernel_init=xavier_uniform, name="value_proj")(value)
        offsets = Dense(
            heads * levels * points * 2,
            kernel_init=zeros,
            bias_init=directional_offsets(heads, levels, points),
            name="sampling_offsets",
        )(query).reshape(batch, length, heads, levels, points, 2)
        weights = Dense(heads * levels * points, kernel_init=zeros, name="attention_weights")(query)
        weights = nn.softmax(widened(weights).reshape(batch, length, heads, levels * points))

        sizes = np.array([(w, h) for h, w in self.shapes], np.float32)  # offsets are pixels of their own level
        origin = jnp.asarray(reference_points(self.shapes))[None, :, None, None, None]
        locations = origin + offsets / sizes[None, None, None, :, None]
        mixed = deformable_attention(
            values.reshape(batch, length, heads, width // heads),
            self.shapes,
            locations,
            weights.reshape(batch, length, heads, levels, points),
        )
        return Dense(width, kernel_init=xavier_uniform, name="output_proj")(mixed)


def directional_offsets(heads: int, levels: int, points: int) -> Initializer:
    """Initial sampling offsets: head h looks along direction 2 pi h / heads, point p at p + 1 pixels (max norm)."""

    def initialize(
        key: Array, shape: Sequence[int], dtype: DTypeLike | None = None, out_sharding: object = None
    ) -> Array:
        angle = np.arange(heads) * 2 * math.pi / heads
        direction = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        direction /= np.abs(direction).max(-1, keepdims=True)
        steps = np.arange(1, points + 1)
        grid = direction[:, None, None] * steps[None, None, :, None]
        return jnp.asarray(np.broadcast_to(grid, (heads, levels, points, 2)).reshape(shape), dtype or jnp.float32)

    return initialize


def reference_points(shapes: tuple[tuple[int, int], ...]) -> Float[np.ndarray, "s 2"]:
    """Pixel centres (x, y) in [0, 1] of all levels, in the order of the flattened tokens."""
    levels = []
    for height, width in shapes:
        y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
        levels.append(np.stack([x.ravel(), y.ravel()], axis=-1))
    return np.concatenate(levels).astype(np.float32)
