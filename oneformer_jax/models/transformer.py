"""Multi-head attention, the residual layers that the query transformers are made of, and the text transformer of the
query-text contrastive loss, which only training needs.

Axes: b images, q queries, k keys, n texts, l tokens of a text, c channels.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import Initializer
from jaxtyping import Array, Bool, Float, Int

from oneformer_jax.models.config import TextEncoderConfig
from oneformer_jax.models.layers import Dense, Dropout, biased, layer_norm, linear, xavier_uniform
from oneformer_jax.models.ops import Blocked, Projected, attend
from oneformer_jax.models.precision import learned_kernel, product
from oneformer_jax.models.remat import marked, small_layer

HEAD_DIM = 64
"""Channels of a head of the text transformer."""


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2.2).

    The three input projections are one parameter, as in PyTorch; its initial distribution depends on that.
    """

    num_heads: int
    dropout: float = 0.0
    in_proj_init: Initializer = xavier_uniform
    out_proj_init: Initializer = xavier_uniform

    @nn.compact
    def __call__(
        self,
        query: Float[Array, "b q c"],
        key: Float[Array, "b k c"],
        value: Float[Array, "b k c"],
        blocked: Bool[Blocked, "#b q k"] | None = None,
        *,
        deterministic: bool,
    ) -> Float[Array, "b q c"]:
        """`blocked` marks keys that a query may not attend to; no row may be blocked entirely."""
        width, heads = query.shape[-1], self.num_heads
        project = InProjection(width, self.in_proj_init, name="in_proj")

        def by_head(x: Array) -> Array:
            return x.reshape(*x.shape[:2], -1, heads, width // heads)

        # One product for all projections of the same tokens.
        projected: Projected
        if query is key is value:
            projected = by_head(project(query, 0, 3))
        elif query is key:
            both, values = by_head(project(query, 0, 2)), project(value, 2, 3)
            projected = both[:, :, 0], both[:, :, 1], by_head(values)[:, :, 0]
        else:
            q, k, v = (by_head(project(x, i, i + 1))[:, :, 0] for i, x in enumerate((query, key, value)))
            projected = q, k, v
        dropout = Dropout(self.dropout, deterministic)
        mixed = attend(projected, dropout, scale=(width // heads) ** -0.5, blocked=blocked).reshape(query.shape)
        return Dense(width, kernel_init=self.out_proj_init, name="out_proj")(mixed)


class InProjection(nn.Module):
    """The projections to queries, keys and values, whose kernels and biases lie side by side."""

    width: int
    kernel_init: Initializer

    def setup(self) -> None:
        self.kernel = self.param("kernel", self.kernel_init, (self.width, 3 * self.width))
        self.bias = self.param("bias", nn.initializers.zeros, (3 * self.width,))

    def __call__(self, x: Float[Array, "b q c"], first: int, stop: int) -> Float[Array, "b q d"]:
        """Those from number `first` up to `stop` of the three, side by side."""
        part = slice(first * self.width, stop * self.width)
        learned = learned_kernel(self)
        kernel = self.kernel[:, part]
        y = product(x.astype(kernel.dtype), kernel, None if learned is None else learned[..., part])
        return marked(biased(y, self.bias[part]), "results")


class SelfAttentionLayer(nn.Module):
    """Self-attention with positions added to queries and keys, residual, and normalisation before or after."""

    num_heads: int
    dropout: float
    pre_norm: bool

    @nn.compact
    def __call__(
        self, x: Float[Array, "b q c"], positions: Float[Array, "#b q c"], *, deterministic: bool
    ) -> Float[Array, "b q c"]:
        norm = layer_norm(name="norm")
        y = norm(x) if self.pre_norm else x
        placed = y + positions
        attention = MultiHeadAttention(self.num_heads, self.dropout, name="attention")
        y = attention(placed, placed, y, deterministic=deterministic)
        x = x + Dropout(self.dropout, deterministic)(y)
        return x if self.pre_norm else norm(x)


class CrossAttentionLayer(nn.Module):
    """Attention of queries to a memory, residual, and normalisation before or after."""

    num_heads: int
    dropout: float
    pre_norm: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b q c"],
        positions: Float[Array, "#b q c"],
        memory: Float[Array, "b k c"],
        memory_positions: Float[Array, "#b k c"],
        blocked: Bool[Array, "b q k"] | None = None,
        *,
        deterministic: bool,
    ) -> Float[Array, "b q c"]:
        norm = layer_norm(name="norm")
        y = norm(x) if self.pre_norm else x
        attention = MultiHeadAttention(self.num_heads, self.dropout, name="attention")
        y = attention(y + positions, memory + memory_positions, memory, blocked, deterministic=deterministic)
        x = x + Dropout(self.dropout, deterministic)(y)
        return x if self.pre_norm else norm(x)


class FeedForwardLayer(nn.Module):
    """Two linear layers with ReLU, residual, and normalisation before or after."""

    hidden: int
    dropout: float
    pre_norm: bool

    @nn.compact
    def __call__(self, x: Float[Array, "b q c"], *, deterministic: bool) -> Float[Array, "b q c"]:
        norm = layer_norm(name="norm")
        y = norm(x) if self.pre_norm else x
        y = nn.relu(linear(y, self.hidden, kernel_init=xavier_uniform, name="linear1"))
        y = Dropout(self.dropout, deterministic)(y)
        y = linear(y, x.shape[-1], kernel_init=xavier_uniform, name="linear2")
        x = x + Dropout(self.dropout, deterministic)(y)
        return x if self.pre_norm else norm(x)


class TextEncoder(nn.Module):
    """Causal text transformer (Jain et al. 2023, section 3.3; Radford et al. 2021) initialised as CLIP."""

    config: TextEncoderConfig

    @nn.compact
    def __call__(self, tokens: Int[Array, "n l"]) -> Float[Array, "n c"]:
        """The feature of each row's end token, which has the largest id.

        Rows may be cut to any length that keeps the end tokens: attention is causal, so the result is the same.
        """
        config, length = self.config, tokens.shape[1]
        normal = nn.initializers.normal
        embedding = self.param("token_embedding", normal(0.02), (config.vocab_size, config.width))
        positions = self.param("positional_embedding", normal(0.01), (config.context_length, config.width))
        x = jnp.take(embedding, tokens, axis=0) + positions[None, :length]
        for i in range(config.num_layers):
            x = small_layer(TextLayer(config, name=f"layer_{i}"), x)
        end = jnp.argmax(tokens, axis=-1)
        x = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]
        return layer_norm(name="norm")(x)


class TextLayer(nn.Module):
    """Causal self-attention and a QuickGELU feed-forward, normalised before."""

    config: TextEncoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "n l c"]) -> Float[Array, "n l c"]:
        width, depth, length = self.config.width, self.config.num_layers, x.shape[1]
        normal = nn.initializers.normal
        into, out_of = normal(width**-0.5), normal((2 * width * depth) ** -0.5)
        attention = MultiHeadAttention(
            max(1, width // HEAD_DIM), in_proj_init=into, out_proj_init=out_of, name="attention"
        )
        future = np.triu(np.ones((1, length, length), bool), k=1)
        y = layer_norm(name="norm1")(x)
        x = x + attention(y, y, y, future, deterministic=True)
        y = linear(layer_norm(name="norm2")(x), 4 * width, kernel_init=normal((2 * width) ** -0.5), name="linear1")
        return x + linear(y * nn.sigmoid(1.702 * y), width, kernel_init=out_of, name="linear2")
