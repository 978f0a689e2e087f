"""Swin transformer backbone.

Axes: b images, h w pixels of a map (_h _w those of another), c channels, n windows, t pixels of a window.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from oneformer_jax.models import remat
from oneformer_jax.models.backbones.registry import BackboneConfig
from oneformer_jax.models.backbones.stages import StagedConfig
from oneformer_jax.models.layers import (
    INITIALIZERS,
    Conv,
    Dense,
    Dropout,
    DropPath,
    fan_in_uniform,
    layer_norm,
    narrow_normal,
    uniform_bias,
)
from oneformer_jax.models.ops import attend, resize
from oneformer_jax.models.precision import widened


@dataclass(frozen=True)
class SwinConfig(StagedConfig):
    """Swin transformer (Liu et al. 2021, section 3)."""

    embed_dim: int = 192
    depths: tuple[int, ...] = (2, 2, 18, 2)
    num_heads: tuple[int, ...] = (6, 12, 24, 48)
    window_size: int = 12
    patch_size: int = 4
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    qk_scale: float | None = None
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.3
    ape: bool = False
    patch_norm: bool = True
    pretrain_img_size: int = 384

    def build(self) -> nn.Module:
        return Swin(self)

    @property
    def in_depth(self) -> tuple[tuple[str, ...], ...]:
        stages = [(f"stage{i}_", f"merging{i}/", f"norm{i}/") for i in range(len(self.depths))]
        return ("patch_embed/", "patch_norm/", "absolute_pos_embed"), *stages

    def adapted_to(self, other: BackboneConfig) -> "SwinConfig":
        if not isinstance(other, SwinConfig):
            return self
        return replace(self, window_size=other.window_size, pretrain_img_size=other.pretrain_img_size)


class Swin(nn.Module):
    """Swin transformer (Liu et al. 2021, section 3): maps of four stages, each normalised on its way out.

    Images of any size: patches and windows are padded at the bottom and right with zeros.
    """

    config: SwinConfig

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w 3"], *, deterministic: bool
    ) -> dict[str, Float[Array, "b _h _w _c"]]:
        config, patch = self.config, self.config.patch_size
        x = Conv(
            config.embed_dim,
            (patch, patch),
            strides=(patch, patch),
            kernel_init=fan_in_uniform,
            bias_init=uniform_bias(3 * patch * patch),
            name="patch_embed",
        )(pad_to_multiple(images, patch))
        x = widened(x)
        if config.patch_norm:
            x = remat.block(layer_norm(name="patch_norm"), x)
        if config.ape:
            side = config.pretrain_img_size // patch
            table = self.param("absolute_pos_embed", narrow_normal, (1, side, side, config.embed_dim))
            x = x + resize(table, (x.shape[1], x.shape[2]), "bicubic")
        still = [deterministic or i in config.frozen_stages for i in range(len(config.depths))]
        x = Dropout(config.drop_rate, still[0])(x)

        drop_path = iter(np.linspace(0, config.drop_path_rate, sum(config.depths)).tolist())
        features = {}
        for i, (depth, heads) in enumerate(zip(config.depths, config.num_heads, strict=True)):
            if i > 0:
                x = remat.block(PatchMerging(config, name=f"merging{i - 1}"), x)
            for j in range(depth):
                shift = config.window_size // 2 if j % 2 else 0
                block = SwinBlock(config, heads, shift, next(drop_path), name=f"stage{i}_block{j}")
                with config.keeping():
                    x = remat.block(block, x, deterministic=still[i])
            features[f"res{i + 2}"] = remat.block(layer_norm(name=f"norm{i}"), x)
        return features


class SwinBlock(nn.Module):
    """Attention inside (shifted) windows and a GELU feed-forward, each normalised before and dropped as a path."""

    config: SwinConfig
    num_heads: int
    shift: int
    drop_path: float

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], deterministic: bool) -> Float[Array, "b h w c"]:
        config, width, (height, length) = self.config, x.shape[-1], x.shape[1:3]
        y = pad_to_multiple(layer_norm(name="norm1")(x), config.window_size)
        padded = (y.shape[1], y.shape[2])
        if self.shift:
            y = jnp.roll(y, (-self.shift, -self.shift), axis=(1, 2))
        blocked = shift_mask(padded, config.window_size, self.shift) if self.shift else None
        windows = partition(y, config.window_size)
        windows = WindowAttention(config, self.num_heads, name="attention")(windows, blocked, deterministic)
        y = unpartition(windows, padded)
        if self.shift:
            y = jnp.roll(y, (self.shift, self.shift), axis=(1, 2))
        path = DropPath(self.drop_path)
        x = x + path(y[:, :height, :length], deterministic)

        dropout, kernel_init = Dropout(config.drop_rate, deterministic), INITIALIZERS[config.init]
        y = layer_norm(name="norm2")(x)
        y = Dense(int(width * config.mlp_ratio), kernel_init=kernel_init, marks_input=True, name="linear1")(y)
        y = dropout(nn.gelu(y, approximate=False))
        y = Dense(width, kernel_init=kernel_init, marks_input=True, name="linear2")(y)
        return x + path(dropout(y), deterministic)


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows with a relative position bias."""

    config: SwinConfig
    num_heads: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n t c"], blocked: Bool[np.ndarray, "n t t"] | None, deterministic: bool
    ) -> Float[Array, "b n t c"]:
        config, heads, side = self.config, self.num_heads, self.config.window_size
        width = x.shape[-1]
        table = self.param("relative_position_bias", narrow_normal, ((2 * side - 1) ** 2, heads))
        bias = jnp.take(table, relative_position_index(side), axis=0).transpose(2, 0, 1)

        kernel_init = INITIALIZERS[config.init]
        qkv = Dense(3 * width, kernel_init, config.qkv_bias, marks_input=True, name="qkv")(x)
        mixed = attend(
            qkv.reshape(*x.shape[:3], 3, heads, width // heads),
            Dropout(config.attn_drop_rate, deterministic),
            scale=config.qk_scale or (width // heads) ** -0.5,
            bias=bias,
            blocked=None if blocked is None else blocked[None],
        )
        mixed = Dense(width, kernel_init=kernel_init, name="proj")(mixed.reshape(x.shape))
        return Dropout(config.drop_rate, deterministic)(mixed)


class PatchMerging(nn.Module):
    """Halves a map: 2x2 pixels become one of twice the width."""

    config: SwinConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b _h _w 2*c"]:
        x = pad_to_multiple(x, 2)
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
        x = x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, height // 2, width // 2, 4 * channels)
        x = layer_norm(name="norm")(x)
        kernel_init = INITIALIZERS[self.config.init]
        return widened(Dense(2 * channels, kernel_init, use_bias=False, marks_input=True, name="reduction")(x))


def pad_to_multiple(x: Float[Array, "b h w c"], multiple: int) -> Float[Array, "b _h _w c"]:
    """Zeros at the bottom and right up to the next multiple."""
    bottom, right = -x.shape[1] % multiple, -x.shape[2] % multiple
    return jnp.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0))) if bottom or right else x


def partition(x: Float[Array, "b h w c"], side: int) -> Float[Array, "b n t c"]:
    """Cuts a map into n windows of t = side * side pixels, row by row."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // side, side, width // side, side, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, (height // side) * (width // side), side * side, channels)


def unpartition(windows: Float[Array, "b n t c"], size: tuple[int, int]) -> Float[Array, "b h w c"]:
    """The map of `size` that `partition` cut."""
    (height, width), side = size, int(windows.shape[2] ** 0.5)
    x = windows.reshape(windows.shape[0], height // side, width // side, side, side, windows.shape[-1])
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(windows.shape[0], height, width, windows.shape[-1])


@lru_cache(maxsize=8)
def relative_position_index(side: int) -> Int[np.ndarray, "t t"]:
    """Row of the bias table for each pair of pixels of a window: offsets (dy, dx), dy major."""
    # int32: an int64 constant cannot be traced both with and without `jax.enable_x64` (jax issue 27602).
    y, x = (axis.ravel() for axis in np.indices((side, side), np.int32))
    dy, dx = (axis[:, None] - axis[None] + side - 1 for axis in (y, x))
    return dy * (2 * side - 1) + dx


@lru_cache(maxsize=64)
def shift_mask(size: tuple[int, int], side: int, shift: int) -> Bool[np.ndarray, "n t t"]:
    """Pairs of pixels that a shifted window must not connect: the roll brought them together from opposite edges."""
    bands = [np.searchsorted([extent - side, extent - shift], np.arange(extent), side="right") for extent in size]
    region = bands[0][:, None] * 3 + bands[1][None]
    height, width = size
    windows = region.reshape(height // side, side, width // side, side).transpose(0, 2, 1, 3).reshape(-1, side * side)
    return windows[:, :, None] != windows[:, None]
