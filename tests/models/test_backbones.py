"""Backbones that this package does not know: trained, saved, read back in another process, evaluated, trained on."""

import pytest
from tiny import TINY

from oneformer_jax.errors import CheckpointError
from oneformer_jax.models.backbones import BackboneConfig, SwinConfig, register_backbone
from oneformer_jax.models.config import OneFormerConfig

MY_BACKBONE = """
from dataclasses import dataclass

import flax.linen as nn

from oneformer_jax.models.backbones import BackboneConfig, register_backbone


@dataclass(frozen=True)
class MyConfig(BackboneConfig):
    widths: tuple[int, ...] = (4, 8, 8, 16)

    def build(self):
        return MyBackbone(self)


class MyBackbone(nn.Module):
    config: MyConfig

    @nn.compact
    def __call__(self, images, *, deterministic):
        features, x = {}, images
        for i, (width, stride) in enumerate(zip(self.config.widths, (4, 2, 2, 2))):
            x = nn.gelu(nn.Conv(width, (3, 3), strides=(stride, stride))(x))
            features[f"res{i + 2}"] = x
        return features


register_backbone("my", MyConfig)
"""


def test_json_names_the_kind() -> None:
    stored = TINY.to_json()
    assert stored["backbone"]["kind"] == "swin"
    assert "ops" not in stored
    assert OneFormerConfig.from_json(stored) == TINY


def test_json_of_before_kinds_is_swin() -> None:
    stored = TINY.to_json()
    del stored["backbone"]["kind"]
    assert OneFormerConfig.from_json(stored) == TINY


def test_an_unknown_kind_says_how_to_register_it() -> None:
    stored = TINY.to_json() | {"backbone": {"kind": "my", "widths": [1, 2]}}
    with pytest.raises(
        CheckpointError, match=r"runs/7: .* kind 'my'; registered are swin\n.*register_backbone\(\"my\""
    ):
        OneFormerConfig.from_json(stored, where="runs/7")


def test_a_backbone_that_could_not_be_read_back_is_not_written() -> None:
    class Unregistered(SwinConfig):
        pass

    with pytest.raises(CheckpointError, match=r"Unregistered is not registered"):
        OneFormerConfig(backbone=Unregistered()).to_json()


def test_a_kind_is_registered_once() -> None:
    class Other(BackboneConfig):
        def build(self): ...

    register_backbone("swin", SwinConfig)  # the same again, as when a module is imported twice
    with pytest.raises(ValueError, match="'swin' of backbones is registered for SwinConfig"):
        register_backbone("swin", Other)
