"""The predictor: task-conditioned queries, masked-attention layers and the prediction heads after each of them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from oneformer_jax.models.attention import CrossAttentionLayer, FeedForwardLayer, SelfAttentionLayer
from oneformer_jax.models.config import TransformerConfig
from oneformer_jax.models.linear import MLP, fan_in_xavier, linear
from oneformer_jax.models.normalization import layer_norm
from oneformer_jax.models.positions import sine_positions
from oneformer_jax.models.predictions import Features, LayerPredictions
from oneformer_jax.models.resize import resize
from oneformer_jax.models.task_queries import ClassTransformer


class MaskDecoder(nn.Module):
    """Masked-attention transformer decoder (Cheng et al. 2022, section 3.2) on task-conditioned queries
    (Jain et al. 2023, section 3.2).

    `decoder_norm` normalises the task vector, too: the weights are shared in the original.
    """

    config: TransformerConfig
    num_classes: int

    @nn.compact
    def __call__(self, task: Float[Array, "b d"], features: Features, *, deterministic: bool) -> LayerPredictions:
        config = self.config
        mask_features = features.mask_features
        decoder_norm = layer_norm(name="decoder_norm")
        mask_embed = MLP(config.hidden_dim, mask_features.shape[-1], 3, name="mask_embed")
        class_embed = nn.Dense(self.num_classes + 1, name="class_embed", **_linear_init(config.hidden_dim))
        normal = nn.initializers.normal(1.0)
        query_embed = self.param("query_embed", normal, (config.num_queries, config.hidden_dim))
        level_embed = self.param("level_embed", normal, (len(features.multi_scale), config.hidden_dim))

        queries = object_queries = self._initial_queries(task, query_embed, mask_features, decoder_norm, deterministic)
        levels = [
            self._level(i, x, embed)
            for i, (x, embed) in enumerate(zip(features.multi_scale, level_embed, strict=True))
        ]
        # Interpolation and the product with the mask embeddings commute: the features are resized once a level.
        level_mask_features = [
            resize(jax.lax.stop_gradient(mask_features), (x.shape[1], x.shape[2])) for x in features.multi_scale
        ]
        class_logits, mask_embeddings = [], []
        for i in range(config.dec_layers):
            normalised = decoder_norm(queries)
            class_logits.append(class_embed(normalised))
            mask_embeddings.append(mask_embed(normalised))
            if i == config.dec_layers - 1:
                break
            memory, memory_positions = levels[i % len(levels)]
            blocked = attention_mask(mask_embeddings[-1], level_mask_features[i % len(levels)])
            queries = DecoderLayer(config, name=f"layer_{i}")(
                queries, query_embed, memory, memory_positions, unblock_full_rows(blocked), deterministic=deterministic
            )
        return LayerPredictions(jnp.stack(class_logits), jnp.stack(mask_embeddings), mask_features, object_queries)
