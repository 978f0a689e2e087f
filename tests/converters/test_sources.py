"""Every known source is recognised by its names, and converted to the architecture that its shapes tell."""

from pathlib import Path

import numpy as np
import pytest
from state_dicts import array, in_memory, rows, shape_of

from converters.names.swin import OUTPUT_NORMS
from converters.rules import ConversionError
from converters.weights import convert, identify
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
    assert converted.kind == identify(state) == "shi"
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
def test_the_configuration_of_hugging_face_tells_what_shapes_do_not(shared: Path) -> None:
    told = {
        "num_attention_heads": 4,
        "pre_norm": True,
        "use_task_norm": False,
        "dropout": 0.0,
        "backbone_config": {"drop_path_rate": 0.1},
    }
    state = published(shared, "hf_swinl_coco", "key_hf_published_4x")
    config = convert(in_memory(state, told)).config
    assert isinstance(config, OneFormerConfig)
    transformer, pixel_decoder = config.transformer, config.pixel_decoder
    assert (transformer.num_heads, pixel_decoder.num_heads, pixel_decoder.num_points) == (4, 4, 8)
    assert (transformer.pre_norm, transformer.use_task_norm, transformer.dropout) == (True, False, 0.0)
    assert config.backbone == SwinConfig(drop_path_rate=0.1)


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
    assert trained.kind == identify(lightning) == "tao"
    assert trained.config == bare.config
    assert trained.report.absent == ()
    assert "model.backbone.norm0.weight" in trained.report.matched
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
    assert theirs.kind == identify(newer) == "timm"
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
