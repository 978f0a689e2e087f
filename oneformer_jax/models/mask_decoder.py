"""The predictor: task-conditioned queries, masked-attention layers and the prediction heads after each of them.

Axes: b images, q queries, k keys (pixels of a level), h w pixels of a map, c channels, k1 classes and no-object.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from oneformer_jax.models.config import TransformerConfig
from oneformer_jax.models.layers import (
    MLP,
    Convolution,
    Dense,
    fan_in_uniform,
    fan_in_xavier,
    layer_norm,
    sine_positions,
    uniform_bias,
)
from oneformer_jax.models.ops import resize
from oneformer_jax.models.predictions import DecodedLayers, Features, mask_logits
from oneformer_jax.models.remat import block, small_layer
from oneformer_jax.models.transformer import CrossAttentionLayer, FeedForwardLayer, SelfAttentionLayer


class MaskDecoder(nn.Module):
    """Masked-attention transformer decoder (Cheng et al. 2022, section 3.2) on task-conditioned queries
    (Jain et al. 2023, section 3.2).

    `decoder_norm` also normalises the task vector: the original shares it.
    """

    config: TransformerConfig
    num_classes: int

    @nn.compact
    def __call__(self, task: Float[Array, "b c"], features: Features, *, deterministic: bool) -> DecodedLayers:
        config, hidden = self.config, self.config.hidden_dim
        mask_features, maps = features.mask_features, features.multi_scale
        normal = nn.initializers.normal(1.0)
        query_embed = self.param("query_embed", normal, (config.num_queries, hidden))
        level_embed = self.param("level_embed", normal, (len(maps), hidden))
        decoder_norm = layer_norm(name="decoder_norm")
        class_embed = Dense(
            self.num_classes + 1, kernel_init=fan_in_uniform, bias_init=uniform_bias(hidden), name="class_embed"
        )
        mask_embed = MLP(hidden, mask_features.shape[-1], 3, name="mask_embed")

        if config.use_task_norm:
            task = decoder_norm(task)
        projected = Convolution(hidden, fan_in_xavier, name="class_input_proj")(mask_features)
        task_queries = ClassTransformer(config, name="class_transformer")(
            task if config.use_task_norm else None,
            query_embed[:-1],
            flatten(jnp.broadcast_to(positions_of(projected), projected.shape)),
            flatten(projected),
            deterministic=deterministic,
        )
        queries = object_queries = jnp.concatenate([task_queries, task[:, None]], axis=1)

        memories = []
        for i, x in enumerate(maps):
            if x.shape[-1] != hidden or config.enforce_input_proj:
                x = Convolution(hidden, fan_in_xavier, name=f"input_proj_{i}")(x)
            memories.append((flatten(x) + level_embed[i][None, None], flatten(positions_of(x))))
        # Interpolation and the product with mask embeddings commute: the features are resized, once a level.
        level_features = [resize(jax.lax.stop_gradient(mask_features), (x.shape[1], x.shape[2])) for x in maps]

        class_logits: list[Array] = []
        mask_embeddings: list[Array] = []
        for i in range(config.dec_layers):
            if i > 0:
                level = (i - 1) % len(maps)
                queries = small_layer(
                    DecoderLayer(config, name=f"layer_{i - 1}"),
                    queries,
                    query_embed[None],
                    *memories[level],
                    unblock_full_rows(blocked_keys(mask_embeddings[-1], level_features[level])),
                    deterministic=deterministic,
                )
            normalised = decoder_norm(queries)
            class_logits.append(class_embed(normalised))
            mask_embeddings.append(mask_embed(normalised))
        return DecodedLayers(class_logits, mask_embeddings, object_queries)


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
            mix = SelfAttentionLayer(*attention, name=f"encoder_{i}_self_attention")
            memory = mix(memory, memory_positions, deterministic=deterministic)
            transform = FeedForwardLayer(*feed_forward, name=f"encoder_{i}_feed_forward")
            memory = transform(memory, deterministic=deterministic)
        if config.enc_layers and config.pre_norm:
            memory = layer_norm(name="encoder_norm")(memory)

        positions = query_positions[None]
        shape = (memory.shape[0], *query_positions.shape)
        queries = jnp.zeros(shape, memory.dtype) if task is None else jnp.broadcast_to(task[:, None], shape)
        for i in range(config.class_dec_layers):
            mix = SelfAttentionLayer(*attention, name=f"decoder_{i}_self_attention")
            queries = mix(queries, positions, deterministic=deterministic)
            look = CrossAttentionLayer(*attention, name=f"decoder_{i}_cross_attention")
            queries = block(look, queries, positions, memory, memory_positions, deterministic=deterministic)
            transform = FeedForwardLayer(*feed_forward, name=f"decoder_{i}_feed_forward")
            queries = transform(queries, deterministic=deterministic)
        return layer_norm(name="decoder_norm")(queries)


class DecoderLayer(nn.Module):
    """Masked cross-attention, self-attention, feed-forward. The original uses no dropout here."""

    config: TransformerConfig

    @nn.compact
    def __call__(
        self,
        queries: Float[Array, "b q c"],
        query_positions: Float[Array, "1 q c"],
        memory: Float[Array, "b k c"],
        memory_positions: Float[Array, "1 k c"],
        blocked: Bool[Array, "b q k"],
        *,
        deterministic: bool,
    ) -> Float[Array, "b q c"]:
        heads, pre_norm = self.config.num_heads, self.config.pre_norm
        queries = CrossAttentionLayer(heads, 0.0, pre_norm, name="cross_attention")(
            queries, query_positions, memory, memory_positions, blocked, deterministic=deterministic
        )
        queries = SelfAttentionLayer(heads, 0.0, pre_norm, name="self_attention")(
            queries, query_positions, deterministic=deterministic
        )
        return FeedForwardLayer(self.config.dim_feedforward, 0.0, pre_norm, name="feed_forward")(
            queries, deterministic=deterministic
        )


def blocked_keys(
    mask_embeddings: Float[Array, "b q c"], level_features: Float[Array, "b h w c"]
) -> Bool[Array, "b q h*w"]:
    """Where the predicted mask, at the size of one level, is background (probability below one half). No gradient."""
    logits = mask_logits(jax.lax.stop_gradient(mask_embeddings), level_features)
    return logits.reshape(*logits.shape[:2], -1) < 0


def unblock_full_rows(blocked: Bool[Array, "b q k"]) -> Bool[Array, "b q k"]:
    """A query whose mask is empty attends everywhere."""
    return jnp.logical_and(blocked, ~jnp.all(blocked, axis=-1, keepdims=True))


def positions_of(x: Float[Array, "b h w c"]) -> Float[Array, "1 h w c"]:
    """The sine position encoding of a map's pixels, as wide as the map."""
    return sine_positions(*x.shape[1:])[None]


def flatten(x: Float[Array, "b h w c"]) -> Float[Array, "b h*w c"]:
    """A map as a sequence of pixels."""
    return x.reshape(x.shape[0], -1, x.shape[-1])
