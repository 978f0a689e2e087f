"""The small layers that all parts are made of, the initial distributions that the original's layers start from, the
sine position encoding, and random words that are cheap to draw, for dropout masks and sampled points.

These need far less randomness than the generator of `jax.random` provides, whose twenty rounds a number are a sizeable
part of a training step on CPU. Here a word is an integer hash of its position and of two words of the key. XLA fuses it
into whatever uses it, draws it again for the backward pass instead of storing it, and splits it over devices without
communication: a word depends on the key and on its position in the global array alone.

Axes: b images, h w pixels, c channels in, d channels out, g groups of channels, n any leading axes.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, UInt32

from oneformer_jax.models.precision import Parameter, as_kernel, learned_kernel, product, widened
from oneformer_jax.models.remat import marked

EPSILON = 1e-5
TEMPERATURE = 10000.0
"""Of the position encoding: the longest wave is this many times as long as the shortest."""

# PyTorch's default for linear and convolution weights: uniform within 1 / sqrt(fan_in).
fan_in_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
xavier_uniform = nn.initializers.xavier_uniform()
# detectron2's "xavier" fill, which is uniform within sqrt(3 / fan_in).
fan_in_xavier = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
# The originals of the backbones truncate at +-2, which is 100 standard deviations: no truncation.
narrow_normal = nn.initializers.normal(0.02)

Init = Literal["original", "fan_in"]
INITIALIZERS: dict[Init, Initializer] = {
    "original": narrow_normal,
    "fan_in": nn.initializers.variance_scaling(1.0, "fan_in", "normal"),
}
"""Distributions of a backbone's initial kernels: normal with 0.02, or with 1 / sqrt(inputs). The originals' suits wide
networks; a narrow one that starts from it hardly leaves the plateau of its first epochs."""


def uniform_bias(fan_in: int) -> Initializer:
    """PyTorch's default for biases: uniform within 1 / sqrt(fan_in)."""
    bound = fan_in**-0.5

    def initialize(
        key: Array, shape: Sequence[int], dtype: DTypeLike | None = None, out_sharding: object = None
    ) -> Array:
        return jax.random.uniform(key, shape, dtype or jnp.float32, -bound, bound)

    return initialize


class Dense(nn.Module):
    """A linear layer over the last axis. `marks_input`: what it multiplies is dear to compute (`models.remat`)."""

    features: int
    kernel_init: Initializer
    use_bias: bool = True
    bias_init: Initializer = nn.initializers.zeros
    marks_input: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n d"]:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,)) if self.use_bias else None
        x = x.astype(kernel.dtype)
        if self.marks_input:
            x = marked(x, "inputs")
        return marked(biased(product(x, kernel, learned_kernel(self)), bias), "results")


def biased(y: Float[Array, "*n d"], bias: Float[Parameter, " d"] | None) -> Float[Array, "*n d"]:
    """`y + bias` in the dtype of `y`. The bias is rounded where it is added, so its gradient is a sum in its own dtype,
    over rows and devices."""
    if bias is None:
        return y
    if bias.dtype == y.dtype:
        return y + _as_row(bias, y)
    return y + jnp.broadcast_to(bias, y.shape).astype(y.dtype)


def linear(
    x: Float[Array, "*n c"], features: int, *, name: str, kernel_init: Initializer = fan_in_uniform
) -> Float[Array, "*n d"]:
    """A `Dense` layer of the calling module whose bias starts as PyTorch's does."""
    return Dense(features, kernel_init=kernel_init, bias_init=uniform_bias(x.shape[-1]), name=name)(x)


class MLP(nn.Module):
    """`num_layers` linear layers with ReLU between them; the hidden ones are `hidden` wide."""

    hidden: int
    features: int
    num_layers: int

    @nn.compact
    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n d"]:
        for i in range(self.num_layers - 1):
            x = nn.relu(linear(x, self.hidden, name=f"layer_{i}"))
        return linear(x, self.features, name=f"layer_{self.num_layers - 1}")


class LayerNorm(nn.LayerNorm):
    """Flax's layer normalisation over the last axis, with its derivative written out.

    What the rules of differentiation make of it takes five sums where three suffice; each is a kernel on GPUs.
    """

    @nn.compact
    def __call__(self, x: Float[Array, "*n c"]) -> Float[Array, "*n c"]:  # type: ignore[override]  # it takes no mask
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        wide = widened(x)
        y = _layer_normalised(self.epsilon, wide, scale.astype(wide.dtype), bias.astype(wide.dtype))
        return y.astype(jnp.result_type(x, scale))


layer_norm = partial(LayerNorm, epsilon=EPSILON)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _layer_normalised(epsilon: float, x: Array, scale: Array, bias: Array) -> Array:
    return _layer_norm_forward(epsilon, x, scale, bias)[0]


def _layer_norm_forward(epsilon: float, x: Array, scale: Array, bias: Array) -> tuple[Array, tuple[Array, ...]]:
    # Two-pass variance: E[x^2] - E[x]^2 loses digits when the mean is large.
    mean = jnp.mean(x, axis=-1, keepdims=True)
    centred = x - mean
    inverse = lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + epsilon)
    return centred * (inverse * _as_row(scale, x)) + _as_row(bias, x), (x, mean, inverse, scale)


def _layer_norm_backward(epsilon: float, kept: tuple[Array, ...], cotangent: Array) -> tuple[Array, Array, Array]:
    x, mean, inverse, scale = kept
    normalised = (x - mean) * inverse
    slope = cotangent * _as_row(scale, x)
    along = jnp.mean(slope * normalised, axis=-1, keepdims=True)
    of_x = inverse * (slope - jnp.mean(slope, axis=-1, keepdims=True) - normalised * along)
    rows = tuple(range(x.ndim - 1))
    return of_x, jnp.sum(cotangent * normalised, axis=rows), jnp.sum(cotangent, axis=rows)


_layer_normalised.defvjp(_layer_norm_forward, _layer_norm_backward)


def _as_row(vector: Float[Parameter, " c"], x: Float[Parameter, "*n c"]) -> Float[Parameter, "*_ones c"]:
    """`vector`, which may be added to `x`."""
    return vector.reshape(*[1] * (x.ndim - 1), -1)


class GroupNorm(nn.Module):
    """Group normalisation (Wu and He 2018) over maps.

    The mean is taken in two stages: a single reduction over a large map loses digits in some runtimes, enough to flip
    bits of the attention masks that depend on it.
    """

    num_groups: int = 32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        grouped = widened(x).reshape(*x.shape[:-1], self.num_groups, channels // self.num_groups)
        centred = grouped - _group_mean(grouped)
        normalised = centred / jnp.sqrt(_group_mean(centred * centred) + EPSILON)
        return normalised.reshape(x.shape) * scale[None, None, None] + bias[None, None, None]


def _group_mean(x: Float[Array, "b h w g c"]) -> Float[Array, "b 1 1 g 1"]:
    return jnp.mean(jnp.mean(x, axis=(2, 4), keepdims=True), axis=1, keepdims=True)


Conv = partial(nn.Conv, promote_dtype=as_kernel)


class Convolution(nn.Module):
    """A convolution of `side` by `side` pixels, 1 or 3; zeros around the borders keep the size."""

    features: int
    kernel_init: Initializer
    side: int = 1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        kernel = self.param("kernel", self.kernel_init, (self.side, self.side, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        x, learned = x.astype(kernel.dtype), learned_kernel(self)
        if self.side == 1:
            y = product(x, kernel[0, 0], None if learned is None else learned[0, 0])
        else:
            y = convolved_3x3(x, kernel)
        return marked(biased(y, bias), "results")


@jax.custom_vjp
def convolved_3x3(x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"]) -> Float[Array, "b h w d"]:
    """The sum over a kernel's nine places of the shifted image times the matrix there.

    XLA for CPU computes the kernel's gradient slowly: there it is nine products of matrices.
    """
    return _convolved(x, kernel)


def _convolved(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolved(x, kernel), (x, kernel)


def _backward(factors: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    x, kernel = factors
    _, of_image = jax.vjp(lambda x: _convolved(x, kernel), x)
    of_kernel = lax.platform_dependent(x, cotangent, cpu=_products_of_places, default=_kernel_gradient)
    return *of_image(cotangent), of_kernel


def _kernel_gradient(x: Array, cotangent: Array) -> Array:
    zeros = jnp.zeros((3, 3, x.shape[-1], cotangent.shape[-1]), x.dtype)
    return jax.vjp(lambda kernel: _convolved(x, kernel), zeros)[1](cotangent)[0]


def _products_of_places(x: Array, cotangent: Array) -> Array:
    """The same: for each of the nine places the product of the shifted image with the cotangent."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    places = [
        jnp.einsum("bhwc,bhwd->cd", padded[:, i : i + height, j : j + width], cotangent)
        for i in range(3)
        for j in range(3)
    ]
    return jnp.stack(places).reshape(3, 3, x.shape[-1], -1)


convolved_3x3.defvjp(_forward, _backward)


def random_bits(key: Key[Array, ""], shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """Uniform 32-bit words. The hash is triple32 (C. Wellons, 2018), keyed before and between its rounds; with
    two rounds (lowbias32) words at some distances are visibly dependent.

    Positions are counted modulo 2^32: an array of more entries repeats itself.
    """
    first, second = key_words(key)
    x = jnp.full(shape, first)
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :]) % 2**32
        x += lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
    return mixed_bits(x, second)


def key_words(key: Key[Array, ""]) -> UInt32[Array, "2"]:
    """What `random_bits` knows of a key: it counts positions from the first, and mixes with the second."""
    return marked(jax.random.bits(key, (2,), jnp.uint32), "draw")


def mixed_bits(x: UInt32[Array, "*n"], second: UInt32[Array, ""]) -> UInt32[Array, "*n"]:
    """The word of each position, from the first word of the key on."""
    x = (x ^ (x >> 17)) * jnp.uint32(0xED5AD4BB)
    x = ((x ^ (x >> 11)) + second) * jnp.uint32(0xAC4C1B51)
    x = (x ^ (x >> 15)) * jnp.uint32(0x31848BAB)
    return x ^ (x >> 14)


class Dropout(nn.Module):
    """Sets entries to 0 with probability `rate` and scales the others by 1 / (1 - rate) (Srivastava et al. 2014)."""

    rate: float
    deterministic: bool

    @property
    def is_on(self) -> bool:
        return not self.deterministic and self.rate > 0

    def words(self) -> UInt32[Array, "2"]:
        """Of the key that it draws with: what another draw of the same mask needs to know."""
        return key_words(self.make_rng("dropout"))

    def __call__(self, x: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Draws from the stream `dropout`; unchanged when `deterministic`."""
        if not self.is_on:
            return x
        if self.rate == 1:
            return jnp.zeros_like(x)
        kept = random_bits(self.make_rng("dropout"), x.shape) >= jnp.uint32(round(self.rate * 2**32))
        return jnp.where(kept, x * (1 / (1 - self.rate)), 0)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): a sample's whole branch is dropped with probability `rate`."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], deterministic: bool) -> Float[Array, "b h w c"]:
        if deterministic or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        kept = marked(jax.random.bernoulli(self.make_rng("dropout"), keep, (x.shape[0], 1, 1, 1)), "draw")
        return jnp.where(kept, x / keep, 0.0)


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
