"""The model keys of a spec as an architecture, where that of a checkpoint differs, and the parts that are frozen, by
TAO's names or by those of this project."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from converters.names.original import BACKBONES, rules_with
from converters.rules import from_params
from oneformer_jax.app.settings.model_choice import KIND, fields_of, keys_with, name_of, plain
from oneformer_jax.app.spec import Spec
from oneformer_jax.app.spec.backbone_keys import SECTIONS
from oneformer_jax.errors import SpecError
from oneformer_jax.models import oneformer
from oneformer_jax.models.backbones import DinatConfig, RadioConfig, backbone_to_json
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import Params
from oneformer_jax.training.optimizer import Names, parameter_names

ONLY_IN_TRAINING = (
    *("backbone.drop_rate", "backbone.attn_drop_rate", "backbone.drop_path_rate", "backbone.use_checkpoint"),
    *("backbone.init", "backbone.layer_scale_init_value", "pixel_decoder.dropout", "transformer.dropout"),
)
"""Fields that a run may choose freely: no weight and no prediction depends on them."""


def model_config(spec: Spec, *, task_pad_id: int = 0) -> OneFormerConfig:
    """The architecture that the `model` section describes; the pad id belongs to the weights that it starts from."""
    kind = SECTIONS[spec.model.backbone.name]
    fields = fields_of(kind, spec.value) | {KIND: kind}
    return OneFormerConfig.from_json(unflatten_dict(fields, sep=".") | {"task_pad_id": task_pad_id})


def architecture_differences(expected: OneFormerConfig, found: OneFormerConfig) -> list[str]:
    """What differs between two architectures, as `key: expected, not found`; what only training reads does not
    count."""
    a, b, keys = _flat(expected), _flat(found), keys_of(found)
    different = [field for field in sorted(a | b) if a.get(field) != b.get(field)]
    if KIND in different:
        different = [field for field in different if field == KIND or not field.startswith("backbone.")]
    return [f"{keys.get(field, field)} {a.get(field)}, not {b.get(field)}" for field in different]


def facts_of(config: OneFormerConfig) -> dict[str, Any]:
    """What a spec says of a backbone whose weights do not hold all of it; nothing of others."""
    backbone = config.backbone
    return dataclasses.asdict(backbone) if isinstance(backbone, DinatConfig | RadioConfig) else {}


def keys_of(config: OneFormerConfig) -> dict[str, str]:
    """Field of a model -> key of a spec that says of it."""
    return keys_with(_kind(config))


def _kind(config: OneFormerConfig) -> str:
    kind: str = backbone_to_json(config.backbone)["kind"]
    return kind


def contradiction(stated: Mapping[str, Any], config: OneFormerConfig) -> str:
    """Which of the `stated` fields differ from the checkpoint's architecture, "" where none does."""
    flat, keys = _flat(config), keys_of(config)
    is_another = stated.get(KIND, flat[KIND]) != flat[KIND]
    different = [
        f"{keys[field]} is {stated[field]} in the spec, {found} in the checkpoint"
        for field, found in flat.items()
        if field in stated and stated[field] != found
        if field == KIND or not (is_another and field.startswith("backbone."))
    ]
    listed = "; ".join(dict.fromkeys(different))
    return f"the checkpoint's architecture is used, not the spec's: {listed}" if listed else ""


def frozen_names(spec: Spec, model: OneFormerConfig) -> Names:
    """The parameters of `model` that are not trained: those of `train.freeze` and `model.backbone.freeze_at`.

    Raises SpecError for a path that names nothing.
    """
    layers = model.backbone.in_depth[: max(0, spec.model.backbone.freeze_at)]
    first = tuple(f"backbone/{start}" for starts in layers for start in starts)
    paths = spec.train.freeze
    if not paths and not first:
        return Names()
    return frozen_parameters(oneformer.shapes(model), paths, first=first, kind=_kind(model))


def frozen_parameters(
    shapes: Params,
    paths: Sequence[str],
    *,
    first: tuple[str, ...] = (),
    kind: str = "swin",
    where: str = "train.freeze",
) -> Names:
    """The parameters below `paths`: dotted paths by TAO's names (`sem_seg_head.predictor`) or by ours (`predictor`);
    and those whose names begin with one of `first`. `kind` is that of the backbone.

    Raises SpecError for a path that names nothing, with what there is instead, and when nothing is left to train.
    """
    names = jax.tree.leaves(parameter_names(shapes))
    dotted = {name.replace("/", "."): name for name in names} | _names_in_tao(shapes, names, kind)
    frozen = {name for name in names if name.startswith(first)} if first else set()
    for path in paths:
        found = {name for known, name in dotted.items() if f"{known}.".startswith(f"{path}.")}
        if not found:
            raise SpecError(f"'{path}' is not a part of the model", where=where, hint=_instead(path, dotted))
        frozen |= found
    if len(frozen) == len(names):
        raise SpecError(f"{', '.join(paths)}: nothing is left to train", where=where)
    return Names(frozen)


def _flat(config: OneFormerConfig) -> dict[str, Any]:
    """The fields that weights and predictions depend on."""
    fields = flatten_dict(config.to_json(), sep=".")
    fields[KIND] = name_of(fields[KIND])
    ignored = ONLY_IN_TRAINING if fields.get("backbone.ape") else (*ONLY_IN_TRAINING, "backbone.pretrain_img_size")
    return {field: plain(value) for field, value in fields.items() if field not in ignored}


def _names_in_tao(shapes: Params, names: Sequence[str], kind: str) -> dict[str, str]:
    """TAO's name -> ours: arrays that hold their own number go through the rules of the conversion."""
    leaves, structure = jax.tree.flatten(shapes)
    numbered = [np.broadcast_to(np.int32(number), leaf.shape) for number, leaf in enumerate(leaves)]
    tree = jax.tree.unflatten(structure, numbered)
    if kind not in BACKBONES:
        del tree["backbone"]
    state = from_params(tree, rules_with(kind))
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
