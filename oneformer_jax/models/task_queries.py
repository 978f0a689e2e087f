"""Task-conditioned queries: a transformer turns the task vector into the initial object queries.

Axes: b images, q queries, k pixels, c channels.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from oneformer_jax.models.attention import CrossAttentionLayer, FeedForwardLayer, SelfAttentionLayer
from oneformer_jax.models.config import TransformerConfig
from oneformer_jax.models.norms import layer_norm


class ClassTransformer(nn.Module):
    """Query initialisation (Jain et al. 2023, section 3.2), a DETR transformer.

    The caller passes what looks swapped, as the original does: `memory`, which is attended to, are position encodings,
    and `memory_positions`, which are added to its keys, are the projected mask features. Trained weights depend on it.
    """

    config: TransformerConfig

    @nn.compact
    def __call__(
        self,
        task: Float[Array, "b c"] | None,
        query_positions: Float[Array, "q c"],
        memory: Float[Array, "b k c"],
        memory_positions: Float[Array, "b k c"],
        *,
        deterministic: bool,
    ) -> Float[Array, "b q c"]:
        """The queries start as copies of `task`, or as zeros without it."""
        config = self.config
        attention = config.num_heads, config.dropout, config.pre_norm
        feed_forward = config.dim_feedforward, config.dropout, config.pre_norm

        for i in range(config.enc_layers):
            attend = SelfAttentionLayer(*attention, name=f"encoder_{i}_self_attention")
            memory = attend(memory, memory_positions, deterministic=deterministic)
            transform = FeedForwardLayer(*feed_forward, name=f"encoder_{i}_feed_forward")
            memory = transform(memory, deterministic=deterministic)
        if config.enc_layers and config.pre_norm:
            memory = layer_norm(name="encoder_norm")(memory)

        positions = query_positions[None]
        shape = (memory.shape[0], *query_positions.shape)
        queries = jnp.zeros(shape, memory.dtype) if task is None else jnp.broadcast_to(task[:, None], shape)
        for i in range(config.class_dec_layers):
            attend = SelfAttentionLayer(*attention, name=f"decoder_{i}_self_attention")
            queries = attend(queries, positions, deterministic=deterministic)
            look = CrossAttentionLayer(*attention, name=f"decoder_{i}_cross_attention")
            queries = look(queries, positions, memory, memory_positions, deterministic=deterministic)
            transform = FeedForwardLayer(*feed_forward, name=f"decoder_{i}_feed_forward")
            queries = transform(queries, deterministic=deterministic)
        return layer_norm(name="decoder_norm")(queries)
