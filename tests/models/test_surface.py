"""The functions that everything else calls: init, encode, decode, predict, encode_text."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY

from oneformer_jax.errors import OneFormerError
from oneformer_jax.models.backbones import BackboneConfig
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import TRAINING_ONLY, decode, encode, encode_text, init, predict
from oneformer_jax.models.predictions import mask_logits

Params = dict[str, Any]
TASK = jnp.arange(2 * 16).reshape(2, 16)


@dataclass(frozen=True)
class ConvConfig(BackboneConfig):
    """Another backbone: one strided convolution a level."""

    width: int = 4

    def build(self) -> nn.Module:
        return ConvBackbone(self)


class ConvBackbone(nn.Module):
    config: ConvConfig

    @nn.compact
    def __call__(self, images: jax.Array, *, deterministic: bool) -> dict[str, jax.Array]:
        features, x = {}, images
        for i, stride in enumerate((4, 2, 2, 2)):
            x = nn.gelu(nn.Conv(self.config.width * 2**i, (3, 3), strides=(stride, stride))(x))
            features[f"res{i + 2}"] = x
        return features


@pytest.fixture(scope="module")
def params() -> Params:
    return init(TINY, jax.random.key(0))


@pytest.fixture(scope="module")
def images() -> jax.Array:
    return jax.random.normal(jax.random.key(1), (2, 64, 96, 3))


@partial(jax.jit, static_argnames="config")
def forward(params: Params, images: jax.Array, task: jax.Array, config: OneFormerConfig, rng: Any = None) -> Any:
    return decode(params, encode(params, images, config=config, rng=rng), task, config=config, rng=rng)


@pytest.mark.slow
def test_parameters_are_a_plain_float32_tree(params: Params) -> None:
    assert set(params) == {"backbone", "pixel_decoder", "predictor", "task_mlp", *TRAINING_ONLY}
    assert type(params["backbone"]) is dict
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert params["logit_scale"].shape == ()
    np.testing.assert_allclose(params["logit_scale"], np.log(1 / 0.07), rtol=1e-6)


@pytest.mark.slow
def test_shapes(params: Params, images: jax.Array) -> None:
    features = jax.eval_shape(partial(encode, config=TINY), params, images)
    assert features.mask_features.shape == (2, 16, 24, 32)
    assert [x.shape[1:3] for x in features.multi_scale] == [(2, 3), (4, 6), (8, 12)]
    layers = jax.eval_shape(partial(decode, config=TINY), params, features, TASK)
    assert layers.class_logits.shape == (3, 2, 5, 4)
    assert layers.mask_embeddings.shape == (3, 2, 5, 32)
    assert layers.object_queries.shape == (2, 5, 32)
    assert jax.eval_shape(partial(predict, config=TINY), params, features, TASK).mask_logits.shape == (2, 5, 16, 24)


@pytest.mark.slow
def test_inference_needs_no_training_parts(params: Params, images: jax.Array) -> None:
    trimmed = {key: value for key, value in params.items() if key not in TRAINING_ONLY}
    features = jax.eval_shape(partial(encode, config=TINY), trimmed, images)
    jax.eval_shape(partial(decode, config=TINY), trimmed, features, TASK)


@pytest.mark.slow
def test_images_of_a_batch_do_not_mix(params: Params, images: jax.Array) -> None:
    both = forward(params, images, TASK, TINY)
    other = forward(params, images.at[0].add(1.0), TASK.at[0].add(1), TINY)
    assert not np.allclose(both.class_logits[:, 0], other.class_logits[:, 0])
    np.testing.assert_allclose(both.class_logits[:, 1], other.class_logits[:, 1], atol=1e-6)


@pytest.mark.slow
def test_an_rng_switches_training_mode_on(params: Params, images: jax.Array) -> None:
    rngs = [jax.random.key(seed) for seed in (0, 0, 1)]
    first, again, other = (forward(params, images, TASK, TINY, rng).class_logits for rng in rngs)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    assert not np.allclose(first, forward(params, images, TASK, TINY).class_logits)


@pytest.mark.slow
def test_the_task_changes_the_queries_but_not_the_features(params: Params, images: jax.Array) -> None:
    first, second = (forward(params, images, task, TINY) for task in (TASK, TASK + 1))
    assert not np.allclose(first.object_queries, second.object_queries)
    np.testing.assert_array_equal(first.mask_features, second.mask_features)


@pytest.mark.slow
def test_text_queries_are_gathered_rows_and_the_context(params: Params) -> None:
    table = jnp.array([[62, 5, 63, 0], [62, 7, 9, 63], [62, 63, 0, 0]])
    texts = encode_text(params, table, jnp.array([[0, 1, 2], [2, 2, 0]]), config=TINY)
    assert texts.shape == (2, 5, 32)
    np.testing.assert_array_equal(texts[0, 2], texts[1, 0])
    np.testing.assert_array_equal(texts[1, 0], texts[1, 1])
    np.testing.assert_array_equal(texts[0, 3:], params["prompt_ctx"])


@pytest.mark.slow
@pytest.mark.parametrize("groups", [1, 2])
def test_texts_of_the_shown_prompts_are_those_of_the_whole_table(params: Params, groups: int) -> None:
    table = jnp.array([[62, row, 63] for row in range(16)])
    prompts = jnp.array([[3, 3, 0], [11, 0, 3], [5, 7, 7], [7, 7, 7]])  # three rows an image at most

    def texts(params: Params, rows_of_image: int | None) -> jax.Array:
        return encode_text(params, table, prompts, config=TINY, rows_of_image=rows_of_image, groups=groups)

    def loss(params: Params, rows_of_image: int | None) -> jax.Array:
        return jnp.sum(jnp.sin(texts(params, rows_of_image)))

    read = jax.jit(texts, static_argnums=1)
    whole, shown = read(params, None), read(params, 3)  # 12 or twice 6 of the 16 rows
    np.testing.assert_allclose(shown, whole, rtol=1e-5, atol=1e-6)
    gradients = [jax.jit(jax.grad(loss), static_argnums=1)(params, rows) for rows in (None, 3)]
    for one, other in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_any_backbone_and_per_sample_gradients(images: jax.Array) -> None:
    """The gradients of a sample are its own: exchanging the samples exchanges the gradients."""
    transformer = dataclasses.replace(TINY.transformer, dec_layers=2)
    config = dataclasses.replace(TINY, backbone=ConvConfig(), transformer=transformer)
    params = init(config, jax.random.key(0))

    def loss(params: Params, image: jax.Array, task: jax.Array) -> jax.Array:
        layers = decode(params, encode(params, image[None], config=config), task[None], config=config)
        return jnp.mean(mask_logits(layers.mask_embeddings[-1], layers.mask_features) ** 2)

    gradients = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0, 0)))
    forwards, backwards = gradients(params, images, TASK), gradients(params, images[::-1], TASK[::-1])
    for one, other in zip(jax.tree.leaves(forwards), jax.tree.leaves(backwards), strict=True):
        np.testing.assert_allclose(one, other[::-1], rtol=1e-3, atol=1e-5 * float(jnp.abs(one).max()) + 1e-9)
    first_layer = forwards["backbone"]["Conv_0"]["kernel"]
    assert not np.allclose(first_layer[0], first_layer[1])


def test_a_configuration_survives_json() -> None:
    assert OneFormerConfig.from_json(TINY.to_json()) == TINY


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 16), (3, 16), (2, 15)])
def test_one_row_of_tokens_an_image(params: Params, shape: tuple[int, int]) -> None:
    """One row would be spread over both images, and they would share its queries."""
    images, tokens = jax.ShapeDtypeStruct((2, 64, 96, 3), jnp.float32), jax.ShapeDtypeStruct(shape, jnp.int32)
    for function in (decode, predict):
        with pytest.raises(OneFormerError, match=rf"shape \({shape[0]}, {shape[1]}\), expected \(2, 16\)"):
            jax.eval_shape(
                lambda images, tokens, function=function: function(
                    params, encode(params, images, config=TINY), tokens, config=TINY
                ),
                images,
                tokens,
            )
