"""The model keys of a spec as an architecture, where that of a checkpoint differs, and the parts that are frozen, by
TAO's names or by those of this project."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from converters.names.original import RULES
from converters.rules import from_params
from oneformer_jax.app.settings.model_choice import KEYS, plain
from oneformer_jax.app.spec import Spec
from oneformer_jax.errors import SpecError
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import Params
from oneformer_jax.training.optimizer import Names, parameter_names

ONLY_IN_TRAINING = (
    *("backbone.drop_rate", "backbone.attn_drop_rate", "backbone.drop_path_rate", "backbone.use_checkpoint"),
    *("backbone.init", "pixel_decoder.dropout", "transformer.dropout"),
)
"""Fields that a run may choose freely: no weight and no prediction depends on them."""


def model_config(spec: Spec, *, task_pad_id: int = 0) -> OneFormerConfig:
    """The architecture that the `model` section describes; the pad id belongs to the weights that it starts from."""
    fields = {field: plain(spec.value(key)) for field, key in KEYS.items()}
    return OneFormerConfig.from_json(unflatten_dict(fields, sep=".") | {"task_pad_id": task_pad_id})


def architecture_differences(expected: OneFormerConfig, found: OneFormerConfig) -> list[str]:
    """What differs between two architectures, as `key: expected, not found`; what only training reads does not
    count."""
    a, b = _flat(expected), _flat(found)
    different = [field for field in sorted(a | b) if a.get(field) != b.get(field)]
    return [f"{KEYS.get(field, field)} {a.get(field)}, not {b.get(field)}" for field in different]


def contradictions(stated: Mapping[str, Any], config: OneFormerConfig) -> Iterator[str]:
    """One line for each of the `stated` fields that differs from the checkpoint's architecture."""
    for field, found in _flat(config).items():
        if field in stated and stated[field] != found:
            yield f"{KEYS[field]} is {stated[field]} in the spec, {found} in the checkpoint: the checkpoint's is used"


def frozen_names(spec: Spec, model: OneFormerConfig) -> Names:
    """The parameters of `model` that are not trained: those of `train.freeze` and `model.backbone.freeze_at`.

    Raises SpecError for a path that names nothing.
    """
    depth = spec.model.backbone.freeze_at
    stages = [name for i in range(depth - 1) for name in (f"layers.{i}", f"norm{i}")]
    first = ["patch_embed", "absolute_pos_embed"] if spec.model.backbone.swin.ape else ["patch_embed"]
    below = [f"backbone.{name}" for name in first + stages] if depth > 0 else []
    paths = [*spec.train.freeze, *below]
    return frozen_parameters(oneformer.shapes(model), paths) if paths else Names()


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
            raise SpecError(f"'{path}' is not a part of the model", where=where, hint=_instead(path, dotted))
        frozen |= found
    if len(frozen) == len(names):
        raise SpecError(f"{', '.join(paths)}: nothing is left to train", where=where)
    return Names(frozen)


def _flat(config: OneFormerConfig) -> dict[str, Any]:
    """The fields that weights and predictions depend on."""
    fields = flatten_dict(config.to_json(), sep=".")
    ignored = ONLY_IN_TRAINING if fields.get("backbone.ape") else (*ONLY_IN_TRAINING, "backbone.pretrain_img_size")
    return {field: plain(value) for field, value in fields.items() if field not in ignored}


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
