"""RADIO backbone: a vision transformer over patches of 16 pixels, and maps at three strides made of its last tokens.

Axes: b images, h w pixels or patches of a map (_h _w those of another), t tokens, c channels, d channels out.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from oneformer_jax.models import layers, ops, remat
from oneformer_jax.models.backbones.registry import BackboneConfig
from oneformer_jax.models.backbones.swin import pad_to_multiple
from oneformer_jax.models.layers import INITIALIZERS, Dense, Dropout, Init, biased
from oneformer_jax.models.precision import learned_kernel, product, widened
from oneformer_jax.models.remat import marked

PATCH = 16
"""Pixels a side."""
POSITIONS_DROPPED = 0.1
"""In training, the share of images whose patches have no positions."""
SMALLEST, NARROWEST = math.sqrt(0.1), 3 / 4
"""In training, of the part of the table of positions that an image gets: the least side of a square, as a share of the
table's, and the least number that its width is multiplied and its height divided by."""
LAYER_SCALE = 1e-5
"""At the start."""

Positions = Literal["resized", "cropped"]
layer_norm = partial(layers.layer_norm, epsilon=1e-6)


@dataclass(frozen=True)
class RadioConfig(BackboneConfig):
    """RADIO (Ranzinger et al. 2024) as TAO adapts it. The defaults are those of ViT-B.

    `tokens` are those in front of the patches. The table of positions has `position_side` patches a side. An image of
    another size gets it "resized" to the longer side and then cut, and random parts of it in training; or "cropped",
    stretched where the image is larger. `align_corners`: the centres of the outer patches meet, as in TAO, not their
    edges, as in RADIO itself. `use_checkpoint`: blocks are computed again for the backward pass.
    `are_positions_frozen`: they are as in evaluation, also while the model trains.
    """

    embed_dim: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    tokens: int = 8
    layer_scale: bool = False
    mlp_norm: bool = False
    position_side: int = 128
    positions: Positions = "resized"
    align_corners: bool = True
    use_checkpoint: bool = False
    init: Init = "original"
    are_positions_frozen: bool = False

    def build(self) -> nn.Module:
        return Radio(self)

    @property
    def finest_stride(self) -> int:
        return PATCH // 2

    def for_inference(self) -> "RadioConfig":
        return replace(self, use_checkpoint=False)

    @property
    def in_depth(self) -> tuple[tuple[str, ...], ...]:
        quarters = [range(i * self.depth // 4, (i + 1) * self.depth // 4) for i in range(4)]
        stages = [tuple(f"block{i}/" for i in quarter) for quarter in quarters]
        return ("patches/",), *stages[:3], (*stages[3], "upsample")

    def with_frozen(self, is_frozen: Callable[[str], bool]) -> "RadioConfig":
        return replace(self, are_positions_frozen=is_frozen("patches/"))

    def adapted_to(self, other: BackboneConfig) -> "RadioConfig":
        return replace(self, position_side=other.position_side) if isinstance(other, RadioConfig) else self


class Radio(nn.Module):
    """A vision transformer (Dosovitskiy et al. 2021) without a last norm. Its patches are `res4`; `res3` is learned
    from them, 2 by 2 pixels of each, and `res5` has their largest values. There is no `res2`.

    Images of any size: patches are padded at the bottom and right with zeros.
    """

    config: RadioConfig

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w 3"], *, deterministic: bool
    ) -> dict[str, Float[Array, "b _h _w _c"]]:
        config = self.config
        x = pad_to_multiple(images, PATCH)
        batch, height, width = x.shape[0], x.shape[1] // PATCH, x.shape[2] // PATCH
        x = Patches(config, name="patches")(x, deterministic or config.are_positions_frozen)
        for i in range(config.depth):
            with remat.using("blocks") if config.use_checkpoint else nullcontext():
                x = remat.block(RadioBlock(config, name=f"block{i}"), x)
        res4 = x[:, config.tokens :].reshape(batch, height, width, config.embed_dim)
        res3 = widened(Upsampling(config.embed_dim // 2, config.init, name="upsample")(res4))
        res3 = nn.gelu(remat.block(layer_norm(name="upsample_norm"), res3), approximate=False)
        return {"res3": res3, "res4": res4, "res5": largest_of_four(res4)}


class Patches(nn.Module):
    """The tokens in front, and the patches of an image with their positions, row by row."""

    config: RadioConfig

    @nn.compact
    def __call__(self, images: Float[Array, "b h w 3"], deterministic: bool) -> Float[Array, "b t c"]:
        config, channels = self.config, images.shape[-1]
        batch, height, width = images.shape[0], images.shape[1] // PATCH, images.shape[2] // PATCH
        x = images.reshape(batch, height, PATCH, width, PATCH, channels).transpose(0, 1, 3, 5, 2, 4)
        x = x.reshape(batch, height * width, channels * PATCH * PATCH)
        x = widened(Dense(config.embed_dim, INITIALIZERS[config.init], use_bias=False, name="embedder")(x))
        narrow = nn.initializers.normal(config.embed_dim**-0.5)
        side = config.position_side
        table = self.param("position_embed", narrow, (1, side, side, config.embed_dim))
        positions = self._positions(table, x, (height, width), deterministic)
        x = x + positions.reshape(-1, height * width, config.embed_dim)
        tokens = self.param("tokens", narrow, (config.tokens, config.embed_dim))
        return jnp.concatenate([jnp.broadcast_to(tokens[None], (batch, *tokens.shape)), x], axis=1)

    def _positions(
        self,
        table: Float[Array, "1 side side c"],
        patches: Float[Array, "b t c"],
        size: tuple[int, int],
        deterministic: bool,
    ) -> Float[Array, "_b h w c"]:
        """Of each image, or of all alike, those of its patches."""
        config = self.config
        if size == table.shape[1:3]:
            positions = table
        elif config.positions == "cropped":
            table = table[:, : size[0], : size[1]]
            stretched = [self._stretch(*ends) for ends in zip(table.shape[1:3], size, strict=True)]
            positions = jnp.einsum("ph,bhwc,qw->bpqc", stretched[0], table, stretched[1])
        elif deterministic:
            stretched = [self._stretch(config.position_side, max(size))[:length] for length in size]
            positions = jnp.einsum("ph,bhwc,qw->bpqc", stretched[0], table, stretched[1])
        else:
            rows, columns = random_parts(self.make_rng("dropout"), (len(patches), *size), config.position_side)
            positions = jnp.einsum("bph,hwc,bqw->bpqc", rows, table[0], columns)
        if deterministic:
            return positions
        kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - POSITIONS_DROPPED, (len(patches), 1, 1, 1))
        return jnp.where(kept, positions, 0.0)

    def _stretch(self, source: int, target: int) -> Float[np.ndarray, "target source"]:
        return ops.interpolation_matrix(source, target, align_corners=self.config.align_corners)


def random_parts(
    key: Array, shape: tuple[int, int, int], side: int
) -> tuple[Float[Array, "b h side"], Float[Array, "b w side"]]:
    """Of (batch, height, width) patches, which rows and columns of a table each mixes: those of a part of the table,
    with a random place and random sides, whose corners are those of the image."""
    batch, height, width = shape
    scale, stretch, *start = jax.random.uniform(key, (4, batch))
    scale = SMALLEST + (1 - SMALLEST) * scale
    stretch = jnp.exp(-math.log(NARROWEST) * (2 * stretch - 1))

    def mixed(length: int, share: Float[Array, " b"], start: Float[Array, " b"]) -> Float[Array, "b length side"]:
        share = jnp.minimum(share, 1.0)
        along = jnp.linspace(0.0, 1.0, length)[None] * share[:, None] + (start * (1 - share))[:, None]
        distances = along[..., None] * (side - 1) - jnp.arange(side)[None, None]
        return jnp.maximum(0.0, 1.0 - jnp.abs(distances))

    return mixed(height, scale / stretch, start[1]), mixed(width, scale * stretch, start[0])


class RadioBlock(nn.Module):
    """Self-attention and a GELU feed-forward, each normalised before and, with layer scales, scaled."""

    config: RadioConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        config, kernel_init = self.config, INITIALIZERS[self.config.init]
        y = SelfAttention(config, name="attention")(layer_norm(name="norm1")(x))
        x = x + self._scaled(widened(y), "layer_scale1")
        y = layer_norm(name="norm2")(x)
        y = Dense(config.mlp_width, kernel_init=kernel_init, marks_input=True, name="linear1")(y)
        y = nn.gelu(y, approximate=False)
        if config.mlp_norm:
            y = layers.layer_norm(name="mlp_norm")(y)
        y = Dense(config.embed_dim, kernel_init=kernel_init, marks_input=True, name="linear2")(y)
        return x + self._scaled(widened(y), "layer_scale2")

    def _scaled(self, y: Float[Array, "b t c"], name: str) -> Float[Array, "b t c"]:
        if not self.config.layer_scale:
            return y
        return y * self.param(name, nn.initializers.constant(LAYER_SCALE), (self.config.embed_dim,))[None, None]


class SelfAttention(nn.Module):
    """Multi-head attention of all tokens to all."""

    config: RadioConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        config, kernel_init, width = self.config, INITIALIZERS[self.config.init], x.shape[-1]
        channels = width // config.num_heads
        qkv = Dense(3 * width, kernel_init, marks_input=True, name="qkv")(x)
        qkv = qkv.reshape(*x.shape[:2], 3, config.num_heads, channels)
        mixed = ops.attend(qkv, Dropout(0.0, True), scale=channels**-0.5).reshape(x.shape)
        return Dense(width, kernel_init=kernel_init, name="proj")(mixed)


class Upsampling(nn.Module):
    """Makes 2 by 2 pixels of each: a transposed convolution of that size and stride, a product of matrices."""

    features: int
    distribution: Init

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w d"]:
        batch, height, width, channels = x.shape
        kernel = self.param("kernel", INITIALIZERS[self.distribution], (2, 2, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        learned = learned_kernel(self)
        y = product(x.astype(kernel.dtype), _matrix(kernel), None if learned is None else _matrix(learned))
        y = y.reshape(batch, height, width, 2, 2, self.features).transpose(0, 1, 3, 2, 4, 5)
        return marked(biased(y.reshape(batch, 2 * height, 2 * width, self.features), bias), "results")


def _matrix(kernel: Float[Array, "2 2 c d"]) -> Float[Array, "c 4*d"]:
    return kernel.transpose(2, 0, 1, 3).reshape(kernel.shape[2], -1)


def largest_of_four(x: Float[Array, "b h w c"]) -> Float[Array, "b _h _w c"]:
    """The largest values of 2 by 2 pixels. A last row or column that is left over is not seen."""
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
