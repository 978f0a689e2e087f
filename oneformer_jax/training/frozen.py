"""Parts of the model that are not trained: which parameters a path names, and what being frozen means for the model.

A frozen parameter has no gradient, no decay and no optimizer state; what is frozen runs as in evaluation, without
dropout and drop path.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import replace

import jax
import numpy as np
from jax import lax

from converters.names.tao import RULES
from converters.rules import from_params
from oneformer_jax.errors import SpecError
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import Params
from oneformer_jax.training.optimizer import parameter_names

Names = frozenset[str]
"""Slash-joined names of parameters."""


def frozen_parameters(shapes: Params, paths: Sequence[str], *, where: str = "train.freeze") -> Names:
    """The parameters below `paths`: dotted paths by TAO's names (`sem_seg_head.predictor`) or by ours (`predictor`).

    Raises SpecError for a path that names nothing, with what there is instead, and when nothing is left to train.
    """
    names = jax.tree.leaves(parameter_names(shapes))
    dotted = {name.replace("/", "."): name for name in names} | _names_in_tao(shapes, names)
    frozen: set[str] = set()
    for path in paths:
        found = {name for known, name in dotted.items() if f"{known}.".startswith(f"{path}.")}
        if not found:
            raise SpecError(f"'{path}' is no part of the model", where=where, hint=_instead(path, dotted))
        frozen |= found
    if len(frozen) == len(names):
        raise SpecError(f"{', '.join(paths)}: nothing is left to train", where=where)
    return Names(frozen)


def _names_in_tao(shapes: Params, names: Sequence[str]) -> dict[str, str]:
    """TAO's name -> ours: arrays that hold their own number go through the rules of the conversion."""
    leaves, structure = jax.tree.flatten(shapes)
    numbered = [np.broadcast_to(np.int32(number), leaf.shape) for number, leaf in enumerate(leaves)]
    state = from_params(jax.tree.unflatten(structure, numbered), RULES)
    return {name: names[array.flat[0]] for name, array in state.items()}


def _instead(path: str, known: Iterable[str]) -> str:
    """The nearest path, and what lies below the part of `path` that exists."""
    parts = {".".join(name.split(".")[:depth]) for name in known for depth in range(1, name.count(".") + 2)}
    parent = path
    while parent and parent not in parts:
        parent = parent.rpartition(".")[0]
    below = sorted(part for part in parts if part.rpartition(".")[0] == parent)
    near = difflib.get_close_matches(path, sorted(parts), n=1)
    suggestion = f"did you mean {near[0]}? " if near else ""
    return f"{suggestion}{f'below {parent}' if parent else 'there'} are {', '.join(below)}"


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
