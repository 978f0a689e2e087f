"""The model keys of a spec as an architecture, and where that of a checkpoint differs."""

from collections.abc import Iterator, Mapping
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from oneformer_jax.app.settings.model_keys import KEYS, plain
from oneformer_jax.app.spec import Spec
from oneformer_jax.models.config import OneFormerConfig

ONLY_IN_TRAINING = (
    *("backbone.drop_rate", "backbone.attn_drop_rate", "backbone.drop_path_rate", "backbone.use_checkpoint"),
    *("backbone.init", "pixel_decoder.dropout", "transformer.dropout"),
)
"""Fields that a run may choose freely: no weight and no prediction depends on them."""


def model_config(spec: Spec, *, task_pad_id: int = 0) -> OneFormerConfig:
    """The architecture that the `model` section describes; the pad id belongs to the weights that it starts from."""
    fields = {field: plain(spec.value(key)) for field, key in KEYS.items()}
    return OneFormerConfig.from_json(unflatten_dict(fields, sep=".") | {"task_pad_id": task_pad_id})


def differences(expected: OneFormerConfig, found: OneFormerConfig) -> list[str]:
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


def _flat(config: OneFormerConfig) -> dict[str, Any]:
    """The fields that weights and predictions depend on."""
    fields = flatten_dict(config.to_json(), sep=".")
    ignored = ONLY_IN_TRAINING if fields.get("backbone.ape") else (*ONLY_IN_TRAINING, "backbone.pretrain_img_size")
    return {field: plain(value) for field, value in fields.items() if field not in ignored}
