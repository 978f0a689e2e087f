"""ConvNeXt backbone.

Axes: b images, h w pixels of a map (_h _w those of another), c channels.
"""

from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float

from oneformer_jax.models import layers, ops, remat
from oneformer_jax.models.backbones.stages import StagedConfig
from oneformer_jax.models.layers import INITIALIZERS, Conv, Dense, DropPath, Init
from oneformer_jax.models.precision import as_kernel, widened

SIDE = 7
"""Of the depthwise kernels."""
MLP_RATIO = 4

layer_norm = partial(layers.layer_norm, epsilon=1e-6)


@dataclass(frozen=True)
class ConvNeXtConfig(StagedConfig):
    """ConvNeXt (Liu et al. 2022, section 2). The defaults are those of ConvNeXt-L. Layer scales start at
    `layer_scale_init_value`."""

    depths: tuple[int, ...] = (3, 3, 27, 3)
    dims: tuple[int, ...] = (192, 384, 768, 1536)
    drop_path_rate: float = 0.4
    layer_scale_init_value: float = 1.0

    def build(self) -> nn.Module:
        return ConvNeXt(self)

    @property
    def in_depth(self) -> tuple[tuple[str, ...], ...]:
        stages = [(f"downsample{i}", f"stage{i}_", f"norm{i}/") for i in range(len(self.depths))]
        return ("stem",), *stages


class ConvNeXt(nn.Module):
    """ConvNeXt (Liu et al. 2022, section 2): maps of four stages, each normalised on its way out.

    Images of any size of at least 32 pixels: what is left over at the bottom and right of a stride is not seen.
    """

    config: ConvNeXtConfig

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w 3"], *, deterministic: bool
    ) -> dict[str, Float[Array, "b _h _w _c"]]:
        config = self.config
        drop_path = iter(np.linspace(0, config.drop_path_rate, sum(config.depths)).tolist())
        features, x = {}, images
        for i, (depth, width) in enumerate(zip(config.depths, config.dims, strict=True)):
            still = deterministic or i in config.frozen_stages
            if i == 0:
                x = remat.block(layer_norm(name="stem_norm"), widened(self._patches(width, 4, "stem")(x)))
            else:
                x = remat.block(layer_norm(name=f"downsample{i}_norm"), x)
                x = widened(self._patches(width, 2, f"downsample{i}")(x))
            for j in range(depth):
                block = ConvNeXtBlock(config, next(drop_path), name=f"stage{i}_block{j}")
                with config.keeping():
                    x = remat.block(block, x, deterministic=still)
            features[f"res{i + 2}"] = remat.block(layer_norm(name=f"norm{i}"), x)
        return features

    def _patches(self, width: int, side: int, name: str) -> nn.Module:
        """Patches of `side` by `side` pixels as one of `width` channels."""
        sides, kernel_init = (side, side), INITIALIZERS[self.config.init]
        return Conv(width, sides, strides=sides, padding="VALID", kernel_init=kernel_init, name=name)


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution, then each pixel's normalised GELU feed-forward; the sum is scaled and dropped as a
    path."""

    config: ConvNeXtConfig
    drop_path: float

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], deterministic: bool) -> Float[Array, "b h w c"]:
        config, width = self.config, x.shape[-1]
        kernel_init = INITIALIZERS[config.init]
        y = layer_norm(name="norm")(widened(Depthwise(config.init, name="depthwise")(x)))
        y = Dense(MLP_RATIO * width, kernel_init=kernel_init, marks_input=True, name="linear1")(y)
        y = nn.gelu(y, approximate=False)
        y = widened(Dense(width, kernel_init=kernel_init, marks_input=True, name="linear2")(y))
        scale = self.param("layer_scale", nn.initializers.constant(config.layer_scale_init_value), (width,))
        return x + DropPath(self.drop_path)(scale[None, None, None] * y, deterministic)


class Depthwise(nn.Module):
    """A depthwise convolution with a bias."""

    distribution: Init

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        kernel = self.param("kernel", INITIALIZERS[self.distribution], (SIDE, SIDE, 1, x.shape[-1]))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        x, kernel, bias = as_kernel(x, kernel, bias)
        return ops.depthwise(x, kernel) + bias[None, None, None]
