"""Dropout whose masks are cheap to draw (see `random_bits`)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from oneformer_jax.models.random_bits import random_bits


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
