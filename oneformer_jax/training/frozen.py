"""Parameters that are not trained: what being frozen means for the model.

A frozen parameter has no gradient, no decay and no optimizer state; what is frozen runs as in evaluation, without
dropout and drop path.
"""

from dataclasses import replace

import jax
from jax import lax

from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import Params
from oneformer_jax.training.optimizer import parameter_names

Names = frozenset[str]
"""Slash-joined names of parameters."""


def without_gradient(params: Params, frozen: Names) -> Params:
    """`params`, through whose frozen ones no gradient flows."""
    if not frozen:
        return params
    return jax.tree.map(
        lambda name, leaf: lax.stop_gradient(leaf) if name in frozen else leaf, parameter_names(params), params
    )


def in_evaluation_mode(config: OneFormerConfig, shapes: Params, frozen: Names) -> OneFormerConfig:
    """The model to train: `config` without the dropout of its frozen parts."""
    names = jax.tree.leaves(parameter_names(shapes))

    def is_frozen(part: str) -> bool:
        return all(name in frozen for name in names if name.startswith(part))

    if is_frozen("pixel_decoder/layer_"):
        config = replace(config, pixel_decoder=replace(config.pixel_decoder, dropout=0.0))
    if is_frozen("predictor/class_transformer/"):
        config = replace(config, transformer=replace(config.transformer, dropout=0.0))
    return replace(config, backbone=config.backbone.with_frozen(lambda part: is_frozen(f"backbone/{part}")))
