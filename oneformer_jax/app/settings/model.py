"""The model keys of a spec and the architecture of a checkpoint: one table, read both ways."""

from collections.abc import Iterator, Mapping
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from oneformer_jax.app.spec import Spec
from oneformer_jax.models.config import OneFormerConfig

SWIN, FORMER = "model.backbone.swin", "model.one_former"
HEAD, TEXT = "model.sem_seg_head", "model.text_encoder"

KEYS = {
    "num_classes": f"{HEAD}.num_classes",
    "task_seq_len": "dataset.task_seq_len",
    **{
        f"backbone.{name}": f"{SWIN}.{name}"
        for name in (
            *("embed_dim", "depths", "num_heads", "window_size", "patch_size", "mlp_ratio", "qkv_bias", "qk_scale"),
            *("drop_rate", "attn_drop_rate", "drop_path_rate", "ape", "patch_norm", "pretrain_img_size"),
            *("use_checkpoint", "init"),
        )
    },
    "pixel_decoder.conv_dim": f"{HEAD}.convs_dim",
    "pixel_decoder.mask_dim": f"{HEAD}.mask_dim",
    "pixel_decoder.num_layers": f"{HEAD}.transformer_enc_layers",
    "pixel_decoder.num_heads": f"{FORMER}.nheads",
    "pixel_decoder.dropout": f"{FORMER}.dropout",
    "transformer.num_queries": f"{FORMER}.num_object_queries",
    "transformer.num_heads": f"{FORMER}.nheads",
    **{
        f"transformer.{name}": f"{FORMER}.{name}"
        for name in (
            *("hidden_dim", "dim_feedforward", "dec_layers", "class_dec_layers", "enc_layers", "dropout", "pre_norm"),
            *("enforce_input_proj", "use_task_norm"),
        )
    },
    **{
        f"text_encoder.{name}": f"{TEXT}.{name}"
        for name in ("width", "num_layers", "vocab_size", "context_length", "n_ctx", "proj_num_layers")
    },
}
"""Field of `OneFormerConfig` -> key of the spec."""

ONLY_IN_TRAINING = (
    *("backbone.drop_rate", "backbone.attn_drop_rate", "backbone.drop_path_rate", "backbone.use_checkpoint"),
    *("backbone.init", "pixel_decoder.dropout", "transformer.dropout"),
)
"""Fields that a run may choose freely: no weight and no prediction depends on them."""


def model_config(spec: Spec, *, task_pad_id: int = 0) -> OneFormerConfig:
    """The architecture that the `model` section describes; the pad id belongs to the weights that it starts from."""
    fields = {field: _plain(spec.value(key)) for field, key in KEYS.items()}
    return OneFormerConfig.from_json(unflatten_dict(fields, sep=".") | {"task_pad_id": task_pad_id})


def differences(theirs: OneFormerConfig, ours: OneFormerConfig) -> list[str]:
    """What differs between two architectures, as `key: theirs, not ours`; what only training reads does not count."""
    a, b = _flat(theirs), _flat(ours)
    different = [field for field in sorted(a | b) if a.get(field) != b.get(field)]
    return [f"{KEYS.get(field, field)} {a.get(field)}, not {b.get(field)}" for field in different]


def stated_fields(spec: Spec) -> dict[str, Any]:
    """The fields of the architecture that the spec sets."""
    return {field: _plain(spec.value(key)) for field, key in KEYS.items() if spec.is_set(key)}


def contradictions(stated: Mapping[str, Any], config: OneFormerConfig) -> Iterator[str]:
    """One line for each of the `stated` fields that differs from the checkpoint's architecture."""
    for field, found in _flat(config).items():
        if field in stated and stated[field] != found:
            yield f"{KEYS[field]} is {stated[field]} in the spec, {found} in the checkpoint: the latter counts"


def _flat(config: OneFormerConfig) -> dict[str, Any]:
    """The fields that weights and predictions depend on."""
    fields = flatten_dict(config.to_json(), sep=".")
    ignored = ONLY_IN_TRAINING if fields.get("backbone.ape") else (*ONLY_IN_TRAINING, "backbone.pretrain_img_size")
    return {field: _plain(value) for field, value in fields.items() if field not in ignored}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
