"""Files with the names and shapes of the published ones, whose backbone is not Swin, convert with none left over."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forward_shapes import check_inference
from state_dicts import rows, shape_of

from converters.files.read import Source
from converters.names.swin import OUTPUT_NORMS
from converters.published import DINAT
from converters.weights import Converted, convert
from oneformer_jax.app.settings.model import architecture_differences, model_config
from oneformer_jax.app.spec import load_spec
from oneformer_jax.models.backbones import BackboneConfig, ConvNeXtConfig, DinatConfig, RadioConfig
from oneformer_jax.models.config import OneFormerConfig

CONVNEXT_XL = ConvNeXtConfig(dims=(256, 512, 1024, 2048))


RADIO_L = RadioConfig(embed_dim=1024, depth=24, num_heads=16, mlp_width=4096, layer_scale=True)


DILATIONS = DINAT["150_16_dinat_l_oneformer_coco_100ep.pth"]
DINAT_COCO = DinatConfig(kernel_size=11, dilations=DILATIONS)
DINAT_CITYSCAPES = DinatConfig(dilations=DINAT["250_16_dinat_l_oneformer_cityscapes_90k.pth"])
FROM_CONFIG_JSON = {"model_type": "dinat", "kernel_size": 11, "dilations": [list(stage) for stage in DILATIONS]}


def converted(
    shared: Path, name: str, column: str = "key", location: str = "weights.pth", **told: Any
) -> tuple[Converted, dict[str, str]]:
    """What the manifest becomes, and its kinds by name."""
    manifest = [row for row in rows(shared / f"reference/keys_{name}.csv") if row[column]]
    state = {row[column]: np.broadcast_to(np.zeros((), row["dtype"]), shape_of(row)) for row in manifest}
    source = Source(location, state, told.pop("config", None))
    return convert(source, **told), {row[column]: row.get("in_shi_backbone", row["kind"]) for row in manifest}


@pytest.mark.prove
@pytest.mark.parametrize(
    ("name", "column", "told", "kind", "backbone"),
    [
        ("shi_dinatl_coco", "key", {"location": "150_16_dinat_l_oneformer_coco_100ep.pth"}, "shi", DINAT_COCO),
        (
            "shi_dinatl_cityscapes",
            "key",
            {"location": "https://there/250_16_dinat_l_oneformer_cityscapes_90k.pth"},
            "shi",
            DINAT_CITYSCAPES,
        ),
        (
            "hf_dinatl_coco",
            "key_hf_published_4x",
            {"config": {"model_type": "oneformer", "backbone_config": FROM_CONFIG_JSON}},
            "huggingface",
            DINAT_COCO,
        ),
        (
            "tao_dinatl",
            "key",
            {"backbone": {"dilations": None, "kernel_size": 7}},
            "tao",
            DinatConfig(attention="zero_padded"),
        ),
        (
            "tao_dinatl",
            "key_lightning",
            {"backbone": {"dilations": DILATIONS, "kernel_size": 7, "attention": "shifted"}},
            "tao",
            DinatConfig(dilations=DILATIONS, attention="shifted"),
        ),
        ("tao_radio_v3l", "key", {}, "tao", RADIO_L),
        ("tao_radio_v3l", "key_lightning", {}, "tao", RADIO_L),
    ],
)
def test_whole_models_of_several_names(
    name: str, column: str, told: dict[str, Any], kind: str, backbone: BackboneConfig, shared: Path
) -> None:
    found, kinds = converted(shared, name, column, **told)
    assert found.kind == kind
    assert isinstance(found.config, OneFormerConfig)
    assert found.config.backbone == backbone
    check_inference(found.config, (800, 1088))
    assert found.report.absent == ()
    bare = {key.removeprefix("model.") if kind == "tao" else key: held for key, held in kinds.items()}
    assert set(found.report.matched) == {key for key, held in bare.items() if held == "param"}
    assert set(found.report.skipped) == {key for key, held in bare.items() if held == "buffer"}


@pytest.mark.prove  # `make test`: a whole model in parity/test_whole_models.py, and backbones below
@pytest.mark.parametrize(
    ("name", "backbone", "queries", "classes"),
    [
        ("shi_convnextl_ade20k", ConvNeXtConfig(), 250, 150),
        ("shi_convnextxl_ade20k", CONVNEXT_XL, 250, 150),
    ],
)
def test_whole_models(name: str, backbone: BackboneConfig, queries: int, classes: int, shared: Path) -> None:
    found, kinds = converted(shared, name)
    config = found.config
    assert found.kind == "shi"
    assert isinstance(config, OneFormerConfig)
    assert (config.backbone, config.transformer.num_queries, config.num_classes) == (backbone, queries, classes)
    check_inference(config, (640, 864))
    assert found.report.absent == ()
    assert set(found.report.matched) == {key for key, kind in kinds.items() if kind == "param"}
    assert set(found.report.skipped) == {key for key, kind in kinds.items() if kind == "buffer"}


PUBLISHED = Path(__file__).parents[2] / "configs" / "published"


@pytest.mark.prove  # `make test`: benchmarks/test_zoo.py, what the specs say
@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("shi_labs_swinl_coco", "150_16_swin_l_oneformer_coco_100ep"),
        ("shi_dinatl_coco", "150_16_dinat_l_oneformer_coco_100ep"),
        ("shi_dinatl_cityscapes", "250_16_dinat_l_oneformer_cityscapes_90k"),
        ("shi_convnextl_ade20k", "250_16_convnext_l_oneformer_ade20k_160k"),
        ("shi_convnextxl_ade20k", "250_16_convnext_xl_oneformer_ade20k_160k"),
    ],
)
def test_the_spec_of_a_published_file_has_its_architecture(name: str, stem: str, shared: Path) -> None:
    found, _ = converted(shared, name, location=f"{stem}.pth")
    assert isinstance(found.config, OneFormerConfig)
    assert architecture_differences(model_config(load_spec(PUBLISHED / f"{stem}.yaml")), found.config) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "backbone"),
    [
        ("convnext_large_imagenet_22k_1k", "convnext", ConvNeXtConfig()),
        pytest.param("dinat_large_11x11_imagenet_in1k", "dinat", DINAT_COCO, marks=pytest.mark.prove),
        pytest.param("dinat_large_imagenet_in22k", "dinat", DinatConfig(dilations=DILATIONS), marks=pytest.mark.prove),
        pytest.param("convnext_xlarge_imagenet_22k_1k", "convnext", CONVNEXT_XL, marks=pytest.mark.prove),
    ],
)
def test_classifiers(name: str, kind: str, backbone: BackboneConfig, shared: Path) -> None:
    found, in_backbone = converted(shared, name, otherwise={"dilations": DILATIONS})
    assert (found.kind, found.config) == (kind, backbone)
    assert found.report.absent == OUTPUT_NORMS
    assert set(found.report.matched) == {key for key, held in in_backbone.items() if held == "True"}
    assert set(found.report.skipped) == {key for key, held in in_backbone.items() if held == "False"}
