"""The converters against the published names and shapes of the Swin-L checkpoints, and against each other."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from carried import from_huggingface, from_original
from state_dicts import array, rows

from converters.names.huggingface import published_name
from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.config import OneFormerConfig, TransformerConfig
from oneformer_jax.models.oneformer import TRAINING_ONLY

SWIN_LARGE_COCO = OneFormerConfig()


@pytest.mark.slow
def test_every_name_of_the_original_is_known(shared: Path) -> None:
    manifest = rows(shared / "reference/keys_shi_labs_swinl_coco.csv")
    _, report = from_original({row["key"]: array(row) for row in manifest}, SWIN_LARGE_COCO)
    assert set(report.matched) == {row["key"] for row in manifest if row["kind"] == "param"}
    assert set(report.skipped) == {row["key"] for row in manifest if row["kind"] == "buffer"}
    assert report.absent == ()


@pytest.mark.parametrize("column", ["key_hf_published_4x", "key_hf_runtime_5_23"])
def test_every_name_of_hugging_face_is_known(column: str, shared: Path) -> None:
    manifest = [row for row in rows(shared / "reference/keys_hf_swinl_coco.csv") if row[column]]
    _, report = from_huggingface({row[column]: array(row) for row in manifest}, SWIN_LARGE_COCO)
    parameters = {published_name(row[column]) for row in manifest if row["shi_labs_key"] and row["kind"] == "param"}
    assert set(report.matched) == parameters
    assert report.absent == ()


def test_a_file_for_inference_lacks_the_text_encoder(shared: Path) -> None:
    manifest = rows(shared / "reference/keys_shi_labs_swinl_coco.csv")
    inference = [row for row in manifest if not row["key"].startswith(("text_", "prompt_ctx", "criterion"))]
    params, report = from_original({row["key"]: array(row) for row in inference}, SWIN_LARGE_COCO)
    assert report.absent == TRAINING_ONLY
    assert set(params) == {"backbone", "pixel_decoder", "predictor", "task_mlp"}


@pytest.mark.slow
def test_names_that_only_some_configurations_have(shared: Path) -> None:
    manifest = rows(shared / "reference/keys_shi_labs_swinl_coco.csv")
    state = {row["key"]: array(row) for row in manifest}
    predictor = "sem_seg_head.predictor"
    layer = f"{predictor}.class_transformer.decoder.layers.0."
    encoder = {
        name.replace(".decoder.", ".encoder."): x
        for name, x in state.items()
        if name.startswith(layer) and "multihead_attn" not in name and "norm3" not in name
    }
    added = {
        **encoder,
        f"{predictor}.class_transformer.encoder.norm.weight": np.zeros(256),
        f"{predictor}.class_transformer.encoder.norm.bias": np.zeros(256),
        **{f"{predictor}.input_proj.{i}.weight": np.zeros((256, 256, 1, 1)) for i in range(3)},
        **{f"{predictor}.input_proj.{i}.bias": np.zeros(256) for i in range(3)},
        "backbone.absolute_pos_embed": np.zeros((1, 192, 96, 96)),
    }
    config = dataclasses.replace(
        SWIN_LARGE_COCO,
        backbone=SwinConfig(ape=True),
        transformer=TransformerConfig(enc_layers=1, pre_norm=True, enforce_input_proj=True),
    )
    _, report = from_original(state | added, config)
    assert set(added) <= set(report.matched)
