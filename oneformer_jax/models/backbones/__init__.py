"""Backbones: one registry, one protocol. Those of this package are registered when it is imported."""

from oneformer_jax.models.backbones.convnext import ConvNeXtConfig
from oneformer_jax.models.backbones.dinat import DinatConfig
from oneformer_jax.models.backbones.radio import RadioConfig
from oneformer_jax.models.backbones.registry import (
    BackboneConfig,
    backbone_from_json,
    backbone_to_json,
    register_backbone,
)
from oneformer_jax.models.backbones.swin import SwinConfig

__all__ = [
    "BackboneConfig",
    "ConvNeXtConfig",
    "DinatConfig",
    "RadioConfig",
    "SwinConfig",
    "backbone_from_json",
    "backbone_to_json",
    "register_backbone",
]

register_backbone("swin", SwinConfig)
register_backbone("convnext", ConvNeXtConfig)
register_backbone("dinat", DinatConfig)
register_backbone("radio", RadioConfig)
