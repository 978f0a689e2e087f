"""Which key of the spec is which field of the architecture. Free of JAX."""

from typing import Any

from oneformer_jax.app.spec import Spec

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


def stated_fields(spec: Spec) -> dict[str, Any]:
    """The fields of the architecture that the spec sets."""
    return {field: plain(spec.value(key)) for field, key in KEYS.items() if spec.is_set(key)}


def plain(value: Any) -> Any:
    """Tuples as JSON has them."""
    return list(value) if isinstance(value, tuple) else value
