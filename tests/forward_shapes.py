"""The shapes of what a model computes, without computing anything."""

import jax
import jax.numpy as jnp

from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.predictions import mask_logits


def check_training(config: OneFormerConfig, batch: int, size: tuple[int, int]) -> None:
    """A forward pass of a training with all its parts, on `batch` images of `size` (height, width)."""
    queries = config.transformer.num_queries

    def forward(key: jax.Array) -> tuple:
        params = oneformer.init(config, key)
        features = oneformer.encode(params, jnp.zeros((batch, *size, 3)), config=config, rng=key)
        layers = oneformer.decode(params, features, jnp.zeros((batch, config.task_seq_len)), config=config, rng=key)
        prompts = jnp.zeros((batch, queries - config.text_encoder.n_ctx), jnp.int32)
        texts = oneformer.encode_text(params, jnp.zeros((10, 9), jnp.int32), prompts, config=config)
        masks = mask_logits(layers.mask_embeddings[-1], layers.mask_features)
        return layers.class_logits[-1], masks, layers.object_queries, texts

    class_logits, masks, object_queries, texts = jax.eval_shape(forward, jax.random.key(0))
    _check_predictions(config, batch, size, class_logits, masks)
    assert object_queries.shape == texts.shape == (batch, queries, config.transformer.hidden_dim)


def check_inference(config: OneFormerConfig, size: tuple[int, int]) -> None:
    """A prediction for one image of `size` (height, width)."""

    def forward(params: dict, images: jax.Array, tokens: jax.Array) -> oneformer.Predictions:
        return oneformer.predict(params, oneformer.encode(params, images, config=config), tokens, config=config)

    images = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    tokens = jax.ShapeDtypeStruct((1, config.task_seq_len), jnp.int32)
    class_logits, masks = jax.eval_shape(forward, oneformer.shapes(config), images, tokens)
    _check_predictions(config, 1, size, class_logits, masks)


def _check_predictions(
    config: OneFormerConfig, batch: int, size: tuple[int, int], class_logits: jax.ShapeDtypeStruct, masks: jax.Array
) -> None:
    queries, stride = config.transformer.num_queries, config.backbone.finest_stride
    assert class_logits.shape == (batch, queries, config.num_classes + 1)
    assert masks.shape == (batch, queries, size[0] // stride, size[1] // stride)
