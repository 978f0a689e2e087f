"""OneFormer as pure functions: parameters in, arrays out.

    params = init(config, rng)
    features = encode(params, normalise(pixels, mean, std), config=config)  # once for all tasks
    predictions = predict(params, features, task_tokens, config=config)     # for each task

`decode` is `predict` with the predictions of all layers, for training. `params` is a plain nested dictionary. With
`rng` a function runs in training mode: dropout and drop path are on.

Axes: b images, h w pixels, t task tokens, q queries, d channels of a query, n rows of a prompt table, l tokens of a
row, p prompts of an image, m rows that are encoded.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num, UInt8

from oneformer_jax.errors import OneFormerError
from oneformer_jax.models import ops, remat
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.layers import MLP
from oneformer_jax.models.mask_decoder import MaskDecoder
from oneformer_jax.models.pixel_decoder import PixelDecoder
from oneformer_jax.models.precision import as_variables, widened
from oneformer_jax.models.predictions import DecodedLayers, Features, LayerPredictions, Predictions, mask_logits
from oneformer_jax.models.transformer import TextEncoder

Params = dict[str, Any]

TRAINING_ONLY = ("text_encoder", "text_projector", "prompt_ctx", "logit_scale")
"""The parameters that only the query-text contrastive loss needs; `encode` and `decode` work without them."""

PARTS = ("backbone", "pixel_decoder", "predictor", "task_mlp", *TRAINING_ONLY)
"""The top-level keys of the parameters; `prompt_ctx` is absent without context rows."""

TEMPERATURE = 0.07
"""Of the contrastive loss at the start: `logit_scale` is ln(1 / temperature)."""


@partial(jax.jit, static_argnames="config")
def init(config: OneFormerConfig, rng: jax.Array) -> Params:
    """Parameters for training from scratch, float32, distributed as the original's.

    Top-level keys: `PARTS`.
    """
    keys = iter(jax.random.split(rng, 7))
    text = config.text_encoder
    backbone, pixel_decoder = config.backbone.build(), PixelDecoder(config.pixel_decoder)
    task_mlp, predictor = _task_mlp(config), MaskDecoder(config.transformer, config.num_classes)

    # The values of its maps are of no matter, and XLA would compute what it knows of them while it compiles.
    images, key = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32), next(keys)
    outputs, _ = jax.eval_shape(partial(backbone.init_with_output, deterministic=True), key, images)
    params: Params = {"backbone": backbone.lazy_init(key, images, deterministic=True)["params"]}
    maps = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), outputs)
    features, variables = pixel_decoder.init_with_output(next(keys), maps, deterministic=True)
    params["pixel_decoder"] = variables["params"]
    task, variables = task_mlp.init_with_output(next(keys), jnp.zeros((1, config.task_seq_len)))
    params["task_mlp"] = variables["params"]
    params["predictor"] = predictor.init(next(keys), task, features, deterministic=True)["params"]
    params["text_encoder"] = TextEncoder(text).init(next(keys), jnp.zeros((1, 2), jnp.int32))["params"]
    params["text_projector"] = _text_projector(config).init(next(keys), jnp.zeros((1, text.width)))["params"]
    if text.n_ctx:
        params["prompt_ctx"] = jax.random.normal(next(keys), (text.n_ctx, text.width))
    params["logit_scale"] = jnp.asarray(math.log(1 / TEMPERATURE), jnp.float32)
    return params


def shapes(config: OneFormerConfig) -> Params:
    """The parameters of a model without their values: `jax.ShapeDtypeStruct` in their place."""
    return jax.eval_shape(lambda: init(config, jax.random.key(0)))  # a key outside would start the devices


def normalise(
    images: UInt8[Array, "b h w 3"],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    sizes: Int[Array, "b 2"] | None = None,
) -> Float[Array, "b h w 3"]:
    """(pixel - mean) / std per channel on the 0..255 scale, float32: images travel to the device as uint8.

    `sizes` are the (height, width) that hold image; the padding beyond them becomes 0 after normalisation, as the
    original pads at inference.
    """
    scale = 1.0 / jnp.asarray(std, float)[None, None, None, :]
    normalised = (images.astype(float) - jnp.asarray(mean, float)[None, None, None, :]) * scale
    if sizes is None:
        return normalised
    rows = jnp.arange(images.shape[1])[None, :] < sizes[:, :1]
    columns = jnp.arange(images.shape[2])[None, :] < sizes[:, 1:]
    return jnp.where((rows[:, :, None] & columns[:, None, :])[..., None], normalised, 0.0)


def encode(
    params: Params, images: Float[Array, "b h w 3"], *, config: OneFormerConfig, rng: jax.Array | None = None
) -> Features:
    """Images (normalised, RGB) -> what all tasks share, float32."""
    backbone_rng, decoder_rng = (None, None) if rng is None else jax.random.split(rng)
    training = {"deterministic": rng is None}
    with _using(config):
        maps = _apply(config.backbone.build(), params["backbone"], images, rng=backbone_rng, **training)
        decoder = PixelDecoder(config.pixel_decoder)
        features = _apply(decoder, params["pixel_decoder"], maps, rng=decoder_rng, **training)
    return jax.tree.map(widened, features)


def decode(
    params: Params,
    features: Features,
    task_tokens: Num[Array, "b t"],
    *,
    config: OneFormerConfig,
    rng: jax.Array | None = None,
) -> LayerPredictions:
    """Features and one task per image -> predictions of all layers, float32.

    `task_tokens` are rows of `config.task_seq_len` raw token ids, padded with `config.task_pad_id`: the ids themselves
    are the input of the task MLP. Raises OneFormerError: another number of rows than images, or rows of another length.
    """
    with _using(config):
        layers = _decoded(params, features, task_tokens, config, rng)
    class_logits, mask_embeddings = jnp.stack(layers.class_logits), widened(jnp.stack(layers.mask_embeddings))
    return LayerPredictions(class_logits, mask_embeddings, features.mask_features, layers.object_queries)


def predict(
    params: Params, features: Features, task_tokens: Num[Array, "b t"], *, config: OneFormerConfig
) -> Predictions:
    """Features and one task per image -> predictions of the last layer, in evaluation mode. Otherwise as `decode`."""
    with _using(config):
        layers = _decoded(params, features, task_tokens, config)
        masks = mask_logits(widened(layers.mask_embeddings[-1]), features.mask_features)
    return Predictions(layers.class_logits[-1], masks)


def _decoded(
    params: Params, features: Features, task_tokens: Array, config: OneFormerConfig, rng: jax.Array | None = None
) -> DecodedLayers:
    expected = (features.mask_features.shape[0], config.task_seq_len)
    if task_tokens.shape != expected:  # one row would be spread over all images without a word
        raise OneFormerError(
            f"task_tokens have the shape {task_tokens.shape}, expected {expected}: a row for each image",
            hint="task_tokens(config.task_pad_id, config.task_seq_len) of data.task_text has a row for each task",
        )
    task = _apply(_task_mlp(config), params["task_mlp"], task_tokens.astype(float))
    predictor = MaskDecoder(config.transformer, config.num_classes)
    return _apply(predictor, params["predictor"], task, features, rng=rng, deterministic=rng is None)


def encode_text(
    params: Params,
    prompt_table: Int[Array, "n l"],
    prompts: Int[Array, "b p"],
    *,
    config: OneFormerConfig,
    rows_of_image: int | None = None,
    groups: int = 1,
) -> Float[Array, "b q d"]:
    """Text queries of each image, (B, num_queries, hidden), float32: rows `prompts` of the encoded table, then the
    learned context rows.

    The text transformer runs once: on the whole table or, where that is less, on what each of `groups` groups of
    successive images (those of one device) shows, if no image shows more than `rows_of_image` different rows. It has
    no dropout.
    """

    def encode(tokens: Int[Array, "m l"]) -> Float[Array, "m d"]:
        with _using(config):
            encoded = _apply(TextEncoder(config.text_encoder), params["text_encoder"], tokens)
            return widened(_apply(_text_projector(config), params["text_projector"], encoded))

    size, length = prompt_table.shape
    largest = size if rows_of_image is None else rows_of_image * (len(prompts) // groups)
    if largest >= size:
        texts = jnp.take(encode(prompt_table), prompts, axis=0)
    else:
        distinct = jax.vmap(lambda rows: jnp.unique(rows, size=largest, return_inverse=True))
        shown, place = distinct(prompts.reshape(groups, -1))
        table = encode(prompt_table[shown].reshape(-1, length)).reshape(groups, largest, -1)
        texts = jax.vmap(lambda table, place: table[place])(table, place).reshape(*prompts.shape, -1)
    if not config.text_encoder.n_ctx:
        return texts
    context = params["prompt_ctx"]
    return jnp.concatenate([texts, jnp.broadcast_to(context[None], (texts.shape[0], *context.shape))], axis=1)


@contextmanager
def _using(config: OneFormerConfig) -> Iterator[None]:
    """Puts in use how the model is computed."""
    with ops.using(config.ops), remat.using(config.remat):
        yield


def _task_mlp(config: OneFormerConfig) -> MLP:
    return MLP(config.transformer.hidden_dim, config.transformer.hidden_dim, 2)


def _text_projector(config: OneFormerConfig) -> MLP:
    return MLP(config.transformer.hidden_dim, config.transformer.hidden_dim, config.text_encoder.proj_num_layers)


def _apply(module: nn.Module, params: Params, *inputs: Any, rng: jax.Array | None = None, **modes: Any) -> Any:
    return module.apply(as_variables(params), *inputs, rngs=None if rng is None else {"dropout": rng}, **modes)
