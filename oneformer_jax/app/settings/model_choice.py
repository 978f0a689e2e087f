"""Which model an action opens, on which devices, and what the spec says of its architecture. Free of JAX."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from oneformer_jax.app.spec import Spec, require
from oneformer_jax.app.spec.backbone_keys import KEYS_OF_RADIO, SECTIONS
from oneformer_jax.devices import DeviceChoice
from oneformer_jax.errors import SpecError
from oneformer_jax.postprocess.results import Thresholds
from oneformer_jax.predict.exported import EXPORTED_SUFFIXES, is_exported
from oneformer_jax.predict.runs import ModelChoice, Stated

FORMER, HEAD, TEXT = "model.one_former", "model.sem_seg_head", "model.text_encoder"
BACKBONE, KIND = "model.backbone", "backbone.kind"

KEYS = {
    "num_classes": f"{HEAD}.num_classes",
    "task_seq_len": "dataset.task_seq_len",
    KIND: f"{BACKBONE}.name",
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
"""Field of `OneFormerConfig` -> key of the spec, but for the fields of a backbone."""

FIELDS = {
    "swin": (
        *("embed_dim", "depths", "num_heads", "window_size", "patch_size", "mlp_ratio", "qkv_bias", "qk_scale"),
        *("drop_rate", "attn_drop_rate", "drop_path_rate", "ape", "patch_norm", "pretrain_img_size"),
        *("use_checkpoint", "init"),
    ),
    "dinat": (
        *("embed_dim", "depths", "num_heads", "kernel_size", "dilations", "attention", "mlp_ratio", "drop_path_rate"),
        *("use_checkpoint", "init"),
    ),
    "convnext": ("depths", "dims", "drop_path_rate", "layer_scale_init_value", "use_checkpoint", "init"),
}
"""Fields of a backbone, by its kind, that are keys of its section of the spec. Those of RADIO follow from keys."""


def keys_with(kind: str) -> dict[str, str]:
    """Field -> key of a model with a backbone of this kind, or the first of several that say of it."""
    names = {name: keys[0] for name, keys in KEYS_OF_RADIO.items()} if kind == "radio" else {}
    names |= {name: name for name in FIELDS.get(kind, ())}
    return KEYS | {f"backbone.{name}": f"{BACKBONE}.{kind}.{key}" for name, key in names.items()}


def fields_of(
    kind: str, value: Callable[[str], Any], counts: Callable[[str], bool] = lambda key: True
) -> dict[str, Any]:
    """The fields of a model with a backbone of this kind, as JSON has them, but for `KIND`: those of which a key
    counts. `value` is that of a key."""
    fields = {field: value(key) for field, key in keys_with(kind).items() if counts(key)}
    if kind == "radio":
        section = f"{BACKBONE}.{kind}"
        told = {name for name, keys in KEYS_OF_RADIO.items() if any(counts(f"{section}.{key}") for key in keys)}
        fields |= {f"backbone.{name}": found for name, found in value(section).fields.items() if name in told}
    return {field: plain(found) for field, found in fields.items() if field != KIND}


def name_of(kind: str) -> str:
    """What a spec calls a kind of backbones; the kind itself where no spec can choose it."""
    return next((name for name, section in SECTIONS.items() if section == kind), kind)


def model_choice(spec: Spec, action: str) -> ModelChoice:
    """`<action>.trt_engine` where it is set, else `<action>.checkpoint`, else what the training of the spec left; -1 as
    its batch size means the usual.

    Raises SpecError: none of them is set, or one names what the other is for; a precision for an exported model.
    """
    section = spec.value(action)
    if not section.trt_engine:
        trained = spec.train.results_dir or spec.results_dir
        if not trained:
            require(spec, f"{action}.checkpoint")
        if is_exported(section.checkpoint):
            where, hint = f"{action}.checkpoint", f"name it in {action}.trt_engine"
            raise SpecError(f"'{section.checkpoint}' is the name of an exported model", where=where, hint=hint)
        chosen = chosen_model(spec, action, section.checkpoint or trained)
        return replace(chosen, precision=section.precision, is_named=bool(section.checkpoint))
    if not is_exported(section.trt_engine):
        hint = f"expected a file {', '.join(EXPORTED_SUFFIXES)}; a checkpoint is {action}.checkpoint"
        what = f"'{section.trt_engine}' is not the name of an exported model"
        raise SpecError(what, where=f"{action}.trt_engine", hint=hint)
    if section.precision != "32":
        hint = "it is chosen by quantize or gen_trt_engine; leave the key out"
        raise SpecError("an exported model has a precision of its own", where=f"{action}.precision", hint=hint)
    return replace(chosen_model(spec, action, section.trt_engine), unused=section.checkpoint)


def chosen_model(spec: Spec, action: str, path: str) -> ModelChoice:
    """The model at `path` with the devices and the batch size of an action."""
    size = spec.value(f"{action}.batch_size")
    return ModelChoice(path, device_choice(spec, action), size if size > 0 else None, stated(spec))


def device_choice(spec: Spec, action: str) -> DeviceChoice:
    """`<action>.gpu_ids` where it is changed, else `<action>.num_gpus`."""
    section = spec.value(action)
    by_index = spec.is_changed(f"{action}.gpu_ids")
    return DeviceChoice(
        count=len(section.gpu_ids) if by_index else section.num_gpus,
        indices=tuple(section.gpu_ids) if by_index else None,
        chosen=by_index or spec.is_changed(f"{action}.num_gpus"),
        section=action,
    )


def stated(spec: Spec) -> Stated:
    """What the spec sets of the architecture and the thresholds, and its label maps: that for all formats first."""
    data, maps = spec.dataset, spec.dataset.label_map
    fields = fields_of(SECTIONS[spec.model.backbone.name], spec.value, spec.is_set)
    if spec.is_set(KEYS[KIND]) or any(field.startswith("backbone.") for field in fields):
        fields[KIND] = spec.model.backbone.name  # its section speaks of it
    return Stated(
        fields,
        {
            name: value
            for name, value in spec.model.test.model_dump(include=set(vars(Thresholds()))).items()
            if spec.is_set(f"model.test.{name}")
        },
        tuple(filter(None, [maps] if isinstance(maps, str) else [maps[name] for name in sorted(maps)])),
        data.contiguous_id,
        (data.pixel_mean, data.pixel_std)
        if any(map(spec.is_set, ("dataset.pixel_mean", "dataset.pixel_std")))
        else None,
    )


def plain(value: Any) -> Any:
    """Tuples as JSON has them."""
    return [plain(element) for element in value] if isinstance(value, list | tuple) else value
