"""Whole models with other backbones than Swin, converted by the command from a file of PyTorch, against the original.

Tolerances are those of golden/backbones/README.md: class logits 3e-5, masks 5e-4, features 5e-5.
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from golden_outputs import Outputs, close, outputs_of
from goldens import Golden, channels_last, load_golden
from rich.console import Console

from oneformer_jax import load_checkpoint
from oneformer_jax.app.actions.model.convert import convert
from oneformer_jax.models.mask_decoder import blocked_keys
from oneformer_jax.models.ops import resize

pytestmark = pytest.mark.slow

FEATURES, LOGITS, MASKS = 5e-5, 3e-5, 5e-4


@pytest.fixture(scope="module", params=[pytest.param("convnext", marks=pytest.mark.prove), "dinat", "radio"])
def golden(request: pytest.FixtureRequest, shared: Path) -> Golden:
    return load_golden(shared / f"reference/golden/backbones/whole_{request.param}_dev.npz")


@pytest.fixture(scope="module")
def outputs(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    folder = tmp_path_factory.mktemp("whole")
    torch.save({"model": {name: torch.tensor(x) for name, x in golden.state.items()}}, folder / "model.pth")
    console = Console(quiet=True)
    convert(
        str(folder / "model.pth"),
        folder / "converted",
        console,
        kind="auto",
        target="checkpoint",
        label_map=None,
        report=None,
        backbone=golden.meta["config"]["backbone"],
    )
    model = load_checkpoint(folder / "converted")
    return outputs_of(golden, model.params, model.config)


def test_features_and_predictions_of_every_layer(golden: Golden, outputs: Outputs) -> None:
    maps, features, layers, texts = outputs
    for name, found in maps.items():
        close(found, channels_last(golden[f"out/backbone/{name}"]), FEATURES)
    close(features.mask_features[0], channels_last(golden["dbg/pixel_decoder/mask_features"]), FEATURES)
    for i, level in enumerate(features.multi_scale):
        close(level[0], channels_last(golden[f"dbg/pixel_decoder/ms{i}"]), FEATURES)
    close(layers.object_queries, golden["out/contrastive_logits"], LOGITS)
    close(texts, golden["out/texts"], LOGITS)
    for layer, prefix in enumerate(("out/aux0/", "out/aux1/", "out/aux2/", "out/")):
        masks = jnp.einsum("bqc,bhwc->bqhw", layers.mask_embeddings[layer], layers.mask_features)
        close(layers.class_logits[layer], golden[f"{prefix}pred_logits"], LOGITS)
        close(masks, golden[f"{prefix}pred_masks"], MASKS)


def test_attention_masks_are_equal(golden: Golden, outputs: Outputs) -> None:
    _, features, layers, _ = outputs
    for layer, level in enumerate(features.multi_scale):
        blocked = blocked_keys(layers.mask_embeddings[layer], resize(features.mask_features, level.shape[1:3]))
        np.testing.assert_array_equal(blocked, golden[f"out/attn_mask{layer}"])
