"""The model with a real Swin-T against Hugging Face's OneFormer with random weights.

At this size rounding flips a few attention-mask bits, and the queries of those rows move: features and the initial
queries must agree everywhere, logits of later layers in 99.9 % of their entries.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from carried import from_huggingface
from goldens import channels_last

from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import decode, encode

# `make test`: converters/test_huggingface_export.py in small, parity/test_converted_goldens.py
pytestmark = pytest.mark.prove

SWIN_TINY = SwinConfig(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window_size=7)
CONFIG = OneFormerConfig(num_classes=133, backbone=SWIN_TINY)
THE_TASK_IS_PANOPTIC = [49406, 518, 10549, 533, 1072, 24755, 49407]


@pytest.fixture(scope="module")
def theirs() -> Any:
    swin = transformers.SwinConfig(
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    torch.manual_seed(0)
    model = transformers.OneFormerForUniversalSegmentation(
        transformers.OneFormerConfig(backbone_config=swin, num_labels=133)
    ).eval()
    with torch.no_grad():  # what starts at a constant would hide mistakes
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 or "bias_table" in name or "level_embed" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape))
            if "sampling_offsets.weight" in name or "attention_weights.weight" in name:
                parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


@pytest.fixture(scope="module")
def params(theirs: Any) -> dict[str, Any]:
    params, report = from_huggingface({name: x.numpy() for name, x in theirs.state_dict().items()}, CONFIG)
    assert report.absent == ("text_encoder", "text_projector", "prompt_ctx")  # it is built for inference
    return jax.tree.map(jnp.asarray, params)


def relative_errors(actual: Any, expected: torch.Tensor) -> np.ndarray:
    truth = expected.numpy()
    return np.abs(np.asarray(actual) - truth) / np.abs(truth).max()


def channels_first(x: Any) -> np.ndarray:
    return np.moveaxis(np.asarray(x), -1, -3)


# None is square; 224x288 gives maps of 56x72 ... 7x9 for windows of 7, and the others pad every stage's windows.
SIZES = [(256, 320), (224, 288), (96, 128)]


@pytest.mark.parametrize("size", SIZES)
def test_real_size(size: tuple[int, int], theirs: Any, params: dict[str, Any]) -> None:
    image = np.random.default_rng(0).standard_normal((1, 3, *size)).astype(np.float32)
    task = np.zeros((1, CONFIG.task_seq_len), np.float32)
    task[0, : len(THE_TASK_IS_PANOPTIC)] = THE_TASK_IS_PANOPTIC
    with torch.no_grad():
        expected = theirs(torch.from_numpy(image), torch.from_numpy(task), output_hidden_states=True)

    pixels = jnp.asarray(channels_last(image))
    maps = CONFIG.backbone.build().apply({"params": params["backbone"]}, pixels, deterministic=True)
    for level, truth in zip(("res2", "res3", "res4", "res5"), expected.encoder_hidden_states, strict=True):
        assert relative_errors(channels_first(maps[level]), truth).max() < 1e-4

    features = jax.jit(partial(encode, config=CONFIG))(params, pixels)
    layers = jax.jit(partial(decode, config=CONFIG))(params, features, jnp.asarray(task))
    mask_features, *multi_scale = expected.pixel_decoder_hidden_states
    assert relative_errors(channels_first(features.mask_features), mask_features).max() < 1e-4
    for ours, truth in zip(features.multi_scale, multi_scale, strict=True):
        assert relative_errors(channels_first(ours), truth).max() < 1e-4
    assert relative_errors(layers.object_queries, expected.transformer_decoder_contrastive_queries).max() < 1e-4

    auxiliary = expected.transformer_decoder_auxiliary_predictions
    truths = [(x["class_queries_logits"], x["masks_queries_logits"]) for x in auxiliary]
    truths.append((expected.class_queries_logits, expected.masks_queries_logits))
    assert len(truths) == len(layers.class_logits) == CONFIG.transformer.dec_layers
    for layer, (class_logits, mask_logits) in enumerate(truths):
        masks = jnp.einsum("bqc,bhwc->bqhw", layers.mask_embeddings[layer], layers.mask_features)
        for errors in (relative_errors(layers.class_logits[layer], class_logits), relative_errors(masks, mask_logits)):
            if layer == 0:
                assert errors.max() < 1e-4
            assert np.mean(errors < 1e-3) >= 0.999
