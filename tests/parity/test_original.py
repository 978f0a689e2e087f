"""The whole model, its sub-blocks and its converted weights against arrays computed by the original OneFormer.

Tolerances are those of golden/README.md: features 5e-5, class logits 3e-4, masks 1e-3.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from carried import from_huggingface, from_original
from goldens import Golden, channels_last, load_golden

from oneformer_jax.models.mask_decoder import MaskDecoder, blocked_keys, unblock_full_rows
from oneformer_jax.models.oneformer import decode, encode, encode_text, predict
from oneformer_jax.models.ops import resize
from oneformer_jax.models.pixel_decoder import PixelDecoder
from oneformer_jax.models.predictions import Features, LayerPredictions
from oneformer_jax.models.transformer import TextEncoder

pytestmark = [pytest.mark.slow, pytest.mark.again]

FEATURES, LOGITS, MASKS = 5e-5, 3e-4, 1e-3


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return load_golden(shared / "reference/golden/shi_tiny_dev.npz")


@pytest.fixture(scope="module")
def params(golden: Golden) -> dict[str, Any]:
    return jax.tree.map(jnp.asarray, from_original(golden.state, golden.config)[0])


@pytest.fixture(scope="module")
def features(golden: Golden, params: dict[str, Any]) -> Features:
    return encode(params, jnp.asarray(channels_last(golden["in/image"])), config=golden.config)


@pytest.fixture(scope="module")
def layers(golden: Golden, params: dict[str, Any], features: Features) -> LayerPredictions:
    return decode(params, features, jnp.asarray(golden["in/task_tokens"]), config=golden.config)


def close(actual: Any, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=0, atol=tolerance)


def outputs_of(tree: Any, *path: str) -> Any:
    """What the submodule at `path` returned when it was called the first time."""
    for key in path:
        tree = tree[key]
    return tree["__call__"][0]


@pytest.fixture(scope="module")
def backbone_calls(golden: Golden, params: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    images = jnp.asarray(channels_last(golden["in/image"]))
    maps, state = golden.config.backbone.build().apply(
        {"params": params["backbone"]}, images, deterministic=True, capture_intermediates=True, mutable="intermediates"
    )
    return maps, state["intermediates"]


@pytest.mark.parametrize("level", ["res2", "res3", "res4", "res5"])
def test_backbone_maps(level: str, golden: Golden, backbone_calls: tuple[dict[str, Any], Any]) -> None:
    close(backbone_calls[0][level], channels_last(golden[f"out/backbone/{level}"]), FEATURES)


BACKBONE_BLOCKS = {
    "patch_embed": "patch_norm",
    "layers.0.blocks.0": "stage0_block0",
    "layers.0.downsample": "merging0",
    "layers.1.blocks.0": "stage1_block0",
    "layers.1.downsample": "merging1",
    "layers.2.blocks.0": "stage2_block0",
    "layers.2.blocks.1": "stage2_block1",
    "layers.2.downsample": "merging2",
    "layers.3.blocks.0": "stage3_block0",
}


@pytest.mark.parametrize("theirs", BACKBONE_BLOCKS)
def test_backbone_blocks(theirs: str, golden: Golden, backbone_calls: tuple[dict[str, Any], Any]) -> None:
    output = outputs_of(backbone_calls[1], BACKBONE_BLOCKS[theirs])[0]
    expected = golden[f"dbg/backbone/{theirs}"]
    if theirs == "patch_embed":
        expected = channels_last(expected)
    close(output.reshape(expected.shape), expected, FEATURES)


def test_pixel_decoder(golden: Golden, features: Features) -> None:
    close(features.mask_features, channels_last(golden["out/pixel_decoder/mask_features"]), FEATURES)
    for i, level in enumerate(features.multi_scale):
        close(level, channels_last(golden[f"out/pixel_decoder/ms{i}"]), FEATURES)


def test_pixel_decoder_layers(
    golden: Golden, params: dict[str, Any], backbone_calls: tuple[dict[str, Any], Any]
) -> None:
    _, state = PixelDecoder(golden.config.pixel_decoder).apply(
        {"params": params["pixel_decoder"]},
        backbone_calls[0],
        deterministic=True,
        capture_intermediates=True,
        mutable="intermediates",
    )
    for i in range(2):
        ours = state["intermediates"]
        close(outputs_of(ours, f"layer_{i}")[0], golden[f"dbg/pixel_decoder/encoder.layers.{i}"], FEATURES)
        attention = golden[f"dbg/pixel_decoder/encoder.layers.{i}.self_attn"]
        close(outputs_of(ours, f"layer_{i}", "attention")[0], attention, FEATURES)


def test_decoder_sub_blocks(golden: Golden, params: dict[str, Any], features: Features) -> None:
    _, state = MaskDecoder(golden.config.transformer, golden.config.num_classes).apply(
        {"params": params["predictor"]},
        jnp.asarray(golden["out/task_embedding"]),
        features,
        deterministic=True,
        capture_intermediates=True,
        mutable="intermediates",
    )
    ours = state["intermediates"]
    for i in range(2):
        expected = golden[f"dbg/predictor/class_transformer.decoder.layers.{i}"]
        close(outputs_of(ours, "class_transformer", f"decoder_{i}_feed_forward")[0], expected, FEATURES)
    for i in range(3):
        for theirs, name in {"cross": "cross_attention", "self": "self_attention", "ffn": "feed_forward"}.items():
            close(outputs_of(ours, f"layer_{i}", name)[0], golden[f"dbg/predictor/{theirs}.{i}"], FEATURES)


def test_object_queries(golden: Golden, layers: LayerPredictions) -> None:
    close(layers.object_queries, golden["out/contrastive_logits"], FEATURES)


@pytest.mark.parametrize(("layer", "prefix"), [(0, "out/aux0/"), (1, "out/aux1/"), (2, "out/aux2/"), (3, "out/")])
def test_predictions_of_every_layer(layer: int, prefix: str, golden: Golden, layers: LayerPredictions) -> None:
    masks = jnp.einsum("bqc,bhwc->bqhw", layers.mask_embeddings[layer], layers.mask_features)
    close(layers.class_logits[layer], golden[f"{prefix}pred_logits"], LOGITS)
    close(masks, golden[f"{prefix}pred_masks"], MASKS)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_attention_masks_are_equal(layer: int, golden: Golden, layers: LayerPredictions, features: Features) -> None:
    level = features.multi_scale[layer]
    blocked = blocked_keys(layers.mask_embeddings[layer], resize(features.mask_features, level.shape[1:3]))
    np.testing.assert_array_equal(blocked, golden[f"out/attn_mask{layer}"])


def test_some_rows_are_fully_masked_and_reset(golden: Golden) -> None:
    masks = [golden[f"out/attn_mask{layer}"] for layer in range(3)]
    assert sum(int(mask.all(-1).sum()) for mask in masks) == golden.meta["n_fully_masked_rows"] > 0
    for mask in masks:
        freed = np.asarray(unblock_full_rows(jnp.asarray(mask)))
        assert not freed[mask.all(-1)].any()
        np.testing.assert_array_equal(freed[~mask.all(-1)], mask[~mask.all(-1)])


def test_texts(golden: Golden, params: dict[str, Any]) -> None:
    table, prompts = jnp.asarray(golden.prompt_table), jnp.asarray(golden.prompts)
    pooled = TextEncoder(golden.config.text_encoder).apply({"params": params["text_encoder"]}, table)
    close(pooled, golden["dbg/text_encoder/pooled"], FEATURES)
    close(encode_text(params, table, prompts, config=golden.config), golden["out/texts"], FEATURES)


def test_a_table_cut_to_its_longest_row_gives_the_same_texts(golden: Golden, params: dict[str, Any]) -> None:
    longest = int(golden.prompt_table.argmax(-1).max()) + 1
    assert longest < golden.prompt_table.shape[1]
    table = jnp.asarray(golden.prompt_table[:, :longest])
    texts = encode_text(params, table, jnp.asarray(golden.prompts), config=golden.config)
    close(texts, golden["out/texts"], FEATURES)


def test_one_raw_image(golden: Golden, params: dict[str, Any]) -> None:
    mean, std = (np.array(golden.meta[name], np.float32) for name in ("pixel_mean", "pixel_std"))
    raw = channels_last(golden["e2e/raw_image"]).astype(np.float32)
    image = np.zeros((1, *golden["in/image"].shape[2:], 3), np.float32)
    image[0, : raw.shape[0], : raw.shape[1]] = (raw - mean) / std

    @jax.jit
    def predicted(image: jax.Array, task: jax.Array) -> Any:
        return predict(params, encode(params, image, config=golden.config), task, config=golden.config)

    predictions = predicted(image, golden["e2e/task_tokens"])
    close(predictions.class_logits, golden["e2e/pred_logits"], LOGITS)
    close(predictions.mask_logits, golden["e2e/pred_masks"], MASKS)


def test_hugging_faces_file_of_the_same_weights_converts_to_the_same(shared: Path, golden: Golden) -> None:
    ported = load_golden(shared / "reference/golden/hf_tiny_dev.npz")
    ours, _ = from_original(golden.state, golden.config)
    theirs, _ = from_huggingface(ported.state, golden.config)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
