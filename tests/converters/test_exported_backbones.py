"""Exported files compute what JAX computes, with every backbone."""

import dataclasses
from pathlib import Path

import jax
import pytest
from models.every_backbone import BACKBONES
from models.tiny import TINY
from test_onnx_export import METADATA, PICTURE

from converters.onnx.export import export_model
from oneformer_jax.models import oneformer


@pytest.mark.prove  # `make test`: Swin in test_onnx_export.py
@pytest.mark.parametrize("name", BACKBONES)
def test_export(name: str, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, backbone=BACKBONES[name])
    params = oneformer.init(config, jax.random.key(3))
    path = tmp_path / "model.onnx"
    metadata = dataclasses.replace(METADATA, mask_stride=config.backbone.finest_stride)
    exported = export_model(params, config, metadata=metadata, path=path, opset=17, pictures=[PICTURE])
    assert exported.parity.failures == []
    assert exported.nodes.get("Conv", 0) == {"convnext": 9, "dinat": 6, "radio": 1}[name]  # of it alone are all but one
