"""Random words that are cheap to draw, for sampled points and dropout masks, and the dropout layers.

They need far less randomness than the generator of `jax.random` provides, whose twenty rounds a number are a sizeable
part of a training step on CPU. Here a word is an integer hash of its position and of two words of the key. XLA fuses it
into whatever uses it, draws it again for the backward pass instead of storing it, and splits it over devices without
communication: a word depends on the key and on its position in the global array alone.

Axes: b images, h w pixels, c channels, n any axes.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Key, UInt32


def random_bits(key: Key[Array, ""], shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """Uniform 32-bit words. The hash is triple32 (C. Wellons, 2018), keyed before and between its rounds; with
    two rounds (lowbias32) words at some distances are visibly dependent.

    Positions are counted modulo 2^32: an array of more entries repeats itself.
    """
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    x = jnp.full(shape, first)
    for axis in range(len(shape)):
        stride = math.prod(shape[axis + 1 :]) % 2**32
        x += lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride)
    x = (x ^ (x >> 17)) * jnp.uint32(0xED5AD4BB)
    x = ((x ^ (x >> 11)) + second) * jnp.uint32(0xAC4C1B51)
    x = (x ^ (x >> 15)) * jnp.uint32(0x31848BAB)
    return x ^ (x >> 14)


class Dropout(nn.Module):
    """Sets entries to 0 with probability `rate` and scales the others by 1 / (1 - rate) (Srivastava et al. 2014)."""

    rate: float
    deterministic: bool

    def __call__(self, x: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Draws from the stream `dropout`; unchanged when `deterministic`."""
        if self.deterministic or self.rate == 0:
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
        kept = jax.random.bernoulli(self.make_rng("dropout"), keep, (x.shape[0], 1, 1, 1))
        return jnp.where(kept, x / keep, 0.0)
