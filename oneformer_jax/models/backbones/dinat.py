"""DiNAT backbone: neighbourhood attention, dilated in every other block.

Axes: b images, h w pixels of a map (_h _w those of another), c channels.
"""

from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from oneformer_jax.models import remat
from oneformer_jax.models.backbones.neighbourhood import neighbourhood_attention
from oneformer_jax.models.backbones.stages import StagedConfig
from oneformer_jax.models.layers import INITIALIZERS, Conv, Dense, DropPath, layer_norm, narrow_normal
from oneformer_jax.models.ops import Projected
from oneformer_jax.models.precision import widened

Attention = Literal["shifted_with_bias", "shifted", "zero_padded"]
"""What a pixel near a border attends to, and whether logits have a learned bias: that of the original and of Hugging
Face; that of TAO where NATTEN computes it; and that of TAO's own fallback, which reads queries in another order than
they are written (`reordered`). Weights of one compute something else in another."""


@dataclass(frozen=True)
class DinatConfig(StagedConfig):
    """Dilated neighbourhood attention transformer (Hassani and Shi 2022, section 3). The defaults are those of DiNAT-L
    in TAO.

    `dilations` has a number for each block of each stage, None: 1 for all.
    """

    embed_dim: int = 192
    depths: tuple[int, ...] = (3, 4, 18, 5)
    num_heads: tuple[int, ...] = (6, 12, 24, 48)
    kernel_size: int = 7
    dilations: tuple[tuple[int, ...], ...] | None = None
    attention: Attention = "shifted_with_bias"
    mlp_ratio: float = 2.0
    drop_path_rate: float = 0.3

    def build(self) -> nn.Module:
        return Dinat(self)

    @property
    def in_depth(self) -> tuple[tuple[str, ...], ...]:
        stages = [(f"stage{i}_", f"downsample{i}", f"norm{i}/") for i in range(len(self.depths))]
        return ("patch_",), *stages


class Dinat(nn.Module):
    """DiNAT (Hassani and Shi 2022, section 3): maps of four stages, each normalised on its way out.

    Images of any size: maps that are smaller than a window are padded at the bottom and right with zeros.
    """

    config: DinatConfig

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w 3"], *, deterministic: bool
    ) -> dict[str, Float[Array, "b _h _w _c"]]:
        config = self.config
        x = self._halved(config.embed_dim // 2, "patch_embed0")(images)
        x = widened(self._halved(config.embed_dim, "patch_embed1")(x))
        x = remat.block(layer_norm(name="patch_norm"), x)
        drop_path = iter(np.linspace(0, config.drop_path_rate, sum(config.depths)).tolist())
        features = {}
        for i, (depth, heads) in enumerate(zip(config.depths, config.num_heads, strict=True)):
            if i > 0:
                x = widened(self._halved(2 * x.shape[-1], f"downsample{i - 1}", use_bias=False)(x))
                x = remat.block(layer_norm(name=f"downsample{i - 1}_norm"), x)
            still = deterministic or i in config.frozen_stages
            for j in range(depth):
                dilation = config.dilations[i][j] if config.dilations else 1
                block = DinatBlock(config, heads, dilation, next(drop_path), name=f"stage{i}_block{j}")
                with config.keeping():
                    x = remat.block(block, x, deterministic=still)
            features[f"res{i + 2}"] = remat.block(layer_norm(name=f"norm{i}"), x)
        return features

    def _halved(self, width: int, name: str, use_bias: bool = True) -> nn.Module:
        """A convolution of 3 by 3 pixels at every other one, with a zero before the first."""
        kernel_init = INITIALIZERS[self.config.init]
        return Conv(width, (3, 3), (2, 2), [(1, 1), (1, 1)], use_bias=use_bias, kernel_init=kernel_init, name=name)


class DinatBlock(nn.Module):
    """Neighbourhood attention and a GELU feed-forward, each normalised before and dropped as a path."""

    config: DinatConfig
    num_heads: int
    dilation: int
    drop_path: float

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], deterministic: bool) -> Float[Array, "b h w c"]:
        config, width, path = self.config, x.shape[-1], DropPath(self.drop_path)
        attention = NeighbourhoodAttention(config, self.num_heads, self.dilation, name="attention")
        x = x + path(widened(attention(layer_norm(name="norm1")(x), deterministic)), deterministic)
        kernel_init = INITIALIZERS[config.init]
        y = layer_norm(name="norm2")(x)
        y = Dense(int(width * config.mlp_ratio), kernel_init=kernel_init, marks_input=True, name="linear1")(y)
        y = Dense(width, kernel_init=kernel_init, marks_input=True, name="linear2")(nn.gelu(y, approximate=False))
        return x + path(widened(y), deterministic)


class NeighbourhoodAttention(nn.Module):
    """Multi-head neighbourhood attention. Where windows are shifted, a map that is smaller than one is padded before
    its projections: pixels of the padding are keys like any other."""

    config: DinatConfig
    num_heads: int
    dilation: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], deterministic: bool) -> Float[Array, "b h w c"]:
        config, heads, kernel = self.config, self.num_heads, self.config.kernel_size
        height, width, channels = x.shape[1:]
        shifted = config.attention != "zero_padded"
        if shifted:
            bottom, right = (max(0, kernel * self.dilation - length) for length in (height, width))
            x = jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0))) if bottom or right else x
        kernel_init = INITIALIZERS[config.init]
        qkv = Dense(3 * channels, kernel_init, marks_input=True, name="qkv")(x)
        qkv = qkv.reshape(*x.shape[:3], 3, heads, -1)
        projected: Projected = qkv
        if not shifted:
            projected = reordered(qkv[..., 0, :, :]), qkv[..., 1, :, :], qkv[..., 2, :, :]
        table = None
        if config.attention == "shifted_with_bias":
            side = 2 * kernel - 1
            table = self.param("relative_position_bias", narrow_normal, (heads, side, side))
        mixed = neighbourhood_attention(
            projected,
            kernel=kernel,
            dilation=self.dilation,
            borders="shifted" if shifted else "zero_padded",
            table=table,
            in_parts=deterministic,
        )
        mixed = mixed[:, :height, :width].reshape(-1, height, width, channels)
        return Dense(channels, kernel_init=kernel_init, name="proj")(mixed)


def reordered(q: Float[Array, "b h w n d"]) -> Float[Array, "b h w n d"]:
    """Queries as TAO's fallback reads them: written with the channels before the rows and the heads before the columns,
    and read as if they were in the order of the argument."""
    return q.transpose(0, 4, 1, 3, 2).reshape(q.shape)
