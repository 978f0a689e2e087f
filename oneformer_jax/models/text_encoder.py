"""The text transformer of the query-text contrastive loss. Training only.

Axes: n texts, l tokens of a text, c channels.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from oneformer_jax.models.attention import MultiHeadAttention
from oneformer_jax.models.config import TextEncoderConfig
from oneformer_jax.models.layers import layer_norm, linear

HEAD_DIM = 64


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
            x = TextLayer(config, name=f"layer_{i}")(x)
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
        future = jnp.asarray(np.triu(np.ones((1, length, length), bool), k=1))
        y = layer_norm(name="norm1")(x)
        x = x + attention(y, y, y, future, deterministic=True)
        y = linear(layer_norm(name="norm2")(x), 4 * width, kernel_init=normal((2 * width) ** -0.5), name="linear1")
        return x + linear(y * nn.sigmoid(1.702 * y), width, kernel_init=out_of, name="linear2")
