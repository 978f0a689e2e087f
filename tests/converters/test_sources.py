"""Every known source is recognised by its names, and converted to the architecture that its shapes tell."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from state_dicts import array, in_memory, rows, shape_of

from converters.names.recognise import recognise
from converters.names.swin import OUTPUT_NORMS
from converters.rules import ConversionError
from converters.weights import convert
from oneformer_jax.errors import CheckpointError
from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.postprocess.results import Thresholds

SWIN_TINY = SwinConfig(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window_size=7)


def published(shared: Path, name: str, column: str = "key") -> dict[str, np.ndarray]:
    manifest = rows(shared / f"reference/keys_{name}.csv")
    return {row[column]: array(row) for row in manifest if row[column]}


def microsoft(shared: Path) -> dict[str, np.ndarray]:
    """Swin-T of ImageNet with values that tell every place apart."""
    rng = np.random.default_rng(0)
    manifest = rows(shared / "reference/keys_swin_tiny_imagenet.csv")
    return {row["key"]: rng.standard_normal(shape_of(row)).astype(np.float32) for row in manifest}


def newer_timm(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The names of timm's newer versions: merging leads a stage, the classifier is deeper, no buffers."""
    renamed = {}
    for name, x in state.items():
        if name.endswith(("attn_mask", "relative_position_index")):
            continue
        if ".downsample." in name:
            _, stage, rest = name.split(".", 2)
            name = f"layers.{int(stage) + 1}.{rest}"
        renamed[name.replace("head.", "head.fc.")] = x
    return renamed


@pytest.mark.tao(35)
def test_the_original(shared: Path) -> None:
    state = published(shared, "shi_labs_swinl_coco")
    converted = convert(in_memory(state))
    assert converted.kind == recognise(state).kind == "shi"
    assert converted.config == OneFormerConfig()
    assert converted.report.absent == ()
    # OBJECT_MASK_THRESHOLD, OVERLAP_THRESHOLD and DETECTIONS_PER_IMAGE of its configurations
    assert converted.thresholds == Thresholds(0.8, 0.8, 150)


@pytest.mark.parametrize("column", ["key_hf_published_4x", "key_hf_runtime_5_23"])
def test_hugging_face(column: str, shared: Path) -> None:
    converted = convert(in_memory(published(shared, "hf_swinl_coco", column)))
    assert converted.kind == "huggingface"
    assert converted.thresholds == Thresholds(0.8, 0.8, 150)
    assert converted.config == OneFormerConfig()


@pytest.mark.slow
@pytest.mark.tao(35)
def test_tao_bare_and_from_its_training(shared: Path) -> None:
    state = published(shared, "tao_swinl")
    bare = convert(in_memory(state))
    assert bare.kind == "tao"
    assert bare.config == OneFormerConfig(task_pad_id=49407)
    assert bare.report.absent == ("logit_scale",)
    assert "backbone.head.weight" in bare.report.skipped

    criterion = {"criterion.empty_weight": np.ones(134), "criterion.logit_scale": np.ones((), np.float32)}
    lightning = {f"model.{name}": x for name, x in state.items()} | criterion
    trained = convert(in_memory(lightning))
    assert trained.kind == recognise(lightning).kind == "tao"
    assert trained.config == bare.config
    assert trained.report.absent == ()
    assert "backbone.norm0.weight" in trained.report.matched
    assert trained.report.notes == ("the names begin with model., which is left out",)
    assert trained.params["logit_scale"] == 1


def test_tao_without_its_signs_must_be_named(shared: Path) -> None:
    state = published(shared, "shi_labs_swinl_coco")
    assert convert(in_memory(state), "tao").config == OneFormerConfig(task_pad_id=49407)


def test_microsofts_classifier(shared: Path) -> None:
    state = microsoft(shared)
    converted = convert(in_memory(state))
    manifest = rows(shared / "reference/keys_swin_tiny_imagenet.csv")
    assert converted.kind == "swin"
    assert converted.config == SWIN_TINY
    in_detection = {row["key"] for row in manifest if row["in_shi_backbone"] == "True" and row["kind"] == "param"}
    assert set(converted.report.matched) == in_detection
    assert converted.report.absent == OUTPUT_NORMS
    assert set(converted.params) == {"backbone"}
    block = converted.params["backbone"]["stage2_block5"]
    np.testing.assert_array_equal(block["linear1"]["kernel"], state["layers.2.blocks.5.mlp.fc1.weight"].T)


@pytest.mark.tao(8)
def test_the_classifier_of_22k_classes_is_of_no_matter(shared: Path) -> None:
    head = {"head.weight": np.zeros((21841, 768), np.float32), "head.bias": np.zeros(21841, np.float32)}
    assert convert(in_memory(microsoft(shared) | head)).config == SWIN_TINY


@pytest.mark.slow
def test_timms_newer_names_hold_the_same(shared: Path) -> None:
    state = microsoft(shared)
    newer = newer_timm(state)
    ours, theirs = convert(in_memory(state)), convert(in_memory(newer))
    assert theirs.kind == recognise(newer).kind == "timm"
    assert theirs.config == ours.config
    for name in ("merging0", "merging2", "stage3_block1"):
        kernels = [c.params["backbone"][name] for c in (ours, theirs)]
        np.testing.assert_equal(*kernels)
    assert set(theirs.report.skipped) == {"norm.weight", "norm.bias", "head.fc.weight", "head.fc.bias"}
    assert convert(in_memory(state), "timm").config == ours.config  # its older names are Microsoft's


def test_an_absolute_position_embedding_of_tokens(shared: Path) -> None:
    tokens = np.random.default_rng(1).standard_normal((1, 56 * 56, 96)).astype(np.float32)
    converted = convert(in_memory(microsoft(shared) | {"absolute_pos_embed": tokens}))
    assert isinstance(converted.config, SwinConfig)
    assert (converted.config.ape, converted.config.pretrain_img_size) == (True, 224)
    table = converted.params["backbone"]["absolute_pos_embed"]
    np.testing.assert_array_equal(table[0, 3, 5], tokens[0, 3 * 56 + 5])


@pytest.mark.tao(8)
@pytest.mark.parametrize("state", [{}, {f"layer.{i}.weight": np.zeros(1) for i in range(20)}])
def test_nothing_known(state: dict[str, np.ndarray]) -> None:
    with pytest.raises(
        CheckpointError, match=r"weights\.pth: weights from no known source: \d+ arrays, the first ones"
    ):
        convert(in_memory(state))


def test_half_a_model_says_what_is_missing(shared: Path) -> None:
    state = published(shared, "shi_labs_swinl_coco")
    no_blocks = {name: x for name, x in state.items() if "blocks" not in name}
    with pytest.raises(
        CheckpointError, match=r"no values for backbone/stage0_block0/.*which determines the architecture"
    ):
        convert(in_memory(no_blocks))
    del state["task_mlp.layers.1.bias"]
    with pytest.raises(ConversionError, match="no values for task_mlp/layer_1/bias"):
        convert(in_memory(state))


@pytest.mark.slow
def test_another_backbone_is_refused(shared: Path) -> None:
    state = published(shared, "shi_labs_swinl_coco")
    other = {name.replace("blocks.0.attn.qkv", "blocks.0.attn.q"): x for name, x in state.items()}
    with pytest.raises(ConversionError, match=r"unexpected arrays backbone\.layers\.0\.blocks\.0\.attn\.q\.weight"):
        convert(in_memory(other))


def hugging_face_swin(task: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    stages = {"out_features": ["stage1", "stage2", "stage3", "stage4"]} if task == "Backbone" else {}
    config = transformers.SwinConfig(embed_dim=8, depths=[1, 2, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, **stages)
    model = getattr(transformers, f"Swin{task}")(config)
    return {name: x.numpy() for name, x in model.state_dict().items()}, json.loads(config.to_json_string(False))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["Model", "ForImageClassification", "Backbone", "ForMaskedImageModeling"])
def test_swin_transformers_of_hugging_face(task: str) -> None:
    state, config = hugging_face_swin(task)
    converted = convert(in_memory(state, config))
    assert converted.kind == "huggingface"
    expected = SwinConfig(embed_dim=8, depths=(1, 2, 1, 1), num_heads=(1, 1, 2, 2), window_size=4, drop_path_rate=0.1)
    assert converted.config == expected
    assert converted.report.absent == (() if task == "Backbone" else OUTPUT_NORMS)
    assert converted.report.notes == ()
    (name,) = [name for name in state if name.endswith("layers.1.blocks.1.attention.k_proj.weight")]
    kernel = converted.params["backbone"]["stage1_block1"]["attention"]["qkv"]["kernel"]
    np.testing.assert_array_equal(kernel[:, 16:32], state[name].T)
    with pytest.raises(CheckpointError, match="hidden_act is 'relu', expected 'gelu'"):
        convert(in_memory(state, config | {"hidden_act": "relu"}))


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "backbone.", "encoder.", "module.model.backbone._orig_mod."]
)
def test_names_that_tools_put_others_before(prefix: str, shared: Path) -> None:
    state = microsoft(shared)
    wrapped = recognise({f"{prefix}{name}": x for name, x in state.items()} | {"rpn.conv.weight": np.zeros(1)})
    assert (wrapped.kind, wrapped.is_backbone, wrapped.prefix) == ("swin", True, prefix)
    assert wrapped.arrays.keys() == state.keys()
    assert wrapped.skipped == {"rpn.conv.weight": f"not under {prefix}"}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize(("name", "column"), [("shi_labs_swinl_coco", "key"), ("hf_swinl_coco", "key_hf_published_4x")])
def test_whole_models_that_tools_put_others_before(prefix: str, name: str, column: str, shared: Path) -> None:
    state = published(shared, name, column)
    wrapped, bare = recognise({f"{prefix}{name}": x for name, x in state.items()}), recognise(state)
    assert (wrapped.kind, wrapped.prefix, list(wrapped.arrays)) == (bare.kind, prefix, list(bare.arrays))


def test_what_is_under_two_names_is_not_guessed(shared: Path) -> None:
    state = microsoft(shared)
    both = {f"{role}.backbone.{name}": x for name, x in state.items() for role in ("student", "teacher")}
    with pytest.raises(
        CheckpointError, match=r"several models, whose names begin with student\.backbone\. and teacher"
    ):
        recognise(both)
    model = published(shared, "shi_labs_swinl_coco")
    clash = {f"module.{name}": x for name, x in model.items()} | {"task_mlp.layers.0.bias": np.zeros(256)}
    with pytest.raises(ConversionError, match=r"unexpected arrays .*module\.task_mlp\.layers\.0\.bias"):
        convert(in_memory(clash))


def test_a_kind_that_does_not_fit_the_names(shared: Path) -> None:
    with pytest.raises(CheckpointError, match="the names are those of swin, not of tao"):
        convert(in_memory(microsoft(shared)), "tao")
