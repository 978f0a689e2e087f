"""Every key of Hugging Face's config.json, for both directions.

A key is read (`READ`), has one value that our model computes (`BUILT_IN`), follows from the arrays and must agree with
them (`architecture`), or is without effect; all others are named. Whether that is so is measured on transformers' own
model (`tests/converters/test_huggingface_config.py`).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from oneformer_jax.errors import CheckpointError
from oneformer_jax.models.backbones import BackboneConfig, DinatConfig, RadioConfig, SwinConfig
from oneformer_jax.models.backbones.radio import PATCH
from oneformer_jax.models.backbones.registry import backbone_to_json
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.layers import EPSILON

Json = Mapping[str, Any]

READ: Mapping[str, float | None] = {
    "pre_norm": None,
    "use_task_norm": None,
    "dropout": 1.0,
    "drop_path_rate": 1.0,
    "hidden_dropout_prob": 1.0,
    "attention_probs_dropout_prob": 1.0,
    "mlp_ratio": 64.0,
}
"""What arrays do not show: numbers from 0, with what they stay below; None: true or false. (Attention heads they do
show: each of the pixel decoder samples 4 points.)"""

BUILT_IN: Json = {
    "model_type": "oneformer",
    "layer_norm_eps": EPSILON,
    "enforce_input_proj": False,  # transformers saves no arrays of these layers and draws new ones at every start
    "strides": [4, 8, 16, 32],
    "common_stride": 4,
    "backbone": None,
    "backbone_kwargs": None,
    "use_timm_backbone": False,
}
"""What our model cannot choose, with the only value that it computes."""

BUILT_IN_TO_SWIN: Json = {
    "model_type": "swin",
    "layer_norm_eps": EPSILON,
    "hidden_act": "gelu",
    "use_absolute_embeddings": False,
    "num_channels": 3,
}

BUILT_IN_TO_DINAT: Json = {
    "model_type": "dinat",
    "layer_norm_eps": EPSILON,
    "hidden_act": "gelu",
    "num_channels": 3,
    "patch_size": 4,
    "qkv_bias": True,
    "layer_scale_init_value": 0.0,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}

BUILT_IN_TO_RADIO: Json = {
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
    "num_channels": 3,
    "patch_size": 16,
    "qkv_bias": True,
    "use_swiglu_ffn": False,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
BUILT_IN_TO: Mapping[str, Json] = {"swin": BUILT_IN_TO_SWIN, "dinat": BUILT_IN_TO_DINAT, "radio": BUILT_IN_TO_RADIO}
"""By the kinds of `models.backbones`."""

# Of every model: settings of text generation, of outputs and of the program that wrote the file.
_OF_ANY_MODEL = """
    _attn_implementation _attn_implementation_autoset _attn_implementation_internal _commit_hash _name_or_path
    add_cross_attention architectures attn_implementation bad_words_ids begin_suppress_tokens bos_token_id
    chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype
    early_stopping encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task
    forced_bos_token_id forced_eos_token_id id2label is_decoder is_encoder_decoder label2id length_penalty max_length
    min_length no_repeat_ngram_size num_beam_groups num_beams num_labels num_return_sequences output_attentions
    output_hidden_states output_scores pad_token_id prefix problem_type pruned_heads remove_invalid_values
    repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature
    tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p torch_dtype torchscript
    transformers_version typical_p use_bfloat16 use_return_dict
"""
WITHOUT_EFFECT = frozenset(
    f"""{_OF_ANY_MODEL}
    class_weight contrastive_temperature contrastive_weight dice_weight hidden_size ignore_value importance_sample_ratio
    init_std init_xavier_std is_training mask_weight max_seq_len no_object_weight norm num_classes num_hidden_layers
    output_auxiliary_logits oversample_ratio train_num_points use_auxiliary_loss use_pretrained_backbone
    """.split()
)
"""Losses, initial values, outputs and copies of other keys: the same weights compute the same whatever these say."""

WITHOUT_EFFECT_ON_SWIN = frozenset(
    f"""{_OF_ANY_MODEL}
    encoder_stride feature_channels hidden_size image_size initializer_range num_layers out_features out_indices
    patch_norm path_norm stage_names strides
    """.split()
)


# How RADIO is read into: its summary, what normalises pixels before it, how it was drawn, other ways to feed it; tokens
# in front of the patches are counted in the arrays.
WITHOUT_EFFECT_ON_RADIO = frozenset(
    f"""{_OF_ANY_MODEL}
    drop_path_rate image_size initializer_range layerscale_value model_type norm_mean norm_std num_cls_tokens
    num_registers patch_dim summary_idxs video_patch_dim video_temporal_patch_size
    """.split()
)
WITHOUT_EFFECT_ON: Mapping[str, frozenset[str]] = {
    "swin": WITHOUT_EFFECT_ON_SWIN,
    "dinat": WITHOUT_EFFECT_ON_SWIN,
    "radio": WITHOUT_EFFECT_ON_RADIO,
}


def told(hf: Json, key: str, default: Any, *, where: str = "") -> Any:
    """What Hugging Face's configuration says of a key of `READ`. Raises CheckpointError: of another type or range."""
    value, below = hf.get(key, default), READ[key]
    if below is None:
        fits, expected = isinstance(value, bool), "true or false"
    else:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < below
        expected = f"a number from 0 to below {below:g}"
    if not fits:
        raise CheckpointError(f"{key} is {value!r:.60}, expected {expected}", where=where)
    return value


def backbone_of(hf: Json, *, where: str = "") -> Json:
    """The part about the backbone. Raises CheckpointError: it is no object."""
    backbone = hf.get("backbone_config") or {}
    if not isinstance(backbone, dict):
        raise CheckpointError(f"backbone_config is {backbone!r:.60}, expected an object", where=where)
    return backbone


def class_names(hf: Json, count: int, *, where: str = "") -> tuple[str, ...]:
    """The names in `id2label`, in the order of their numbers; none where it is absent.

    Raises CheckpointError unless it names the classes 0 to `count` - 1.
    """
    labels = hf.get("id2label")
    if not labels:
        return ()
    expected = [str(index) for index in range(count)]
    if (
        not isinstance(labels, dict)
        or set(labels) != set(expected)
        or not all(isinstance(name, str) for name in labels.values())
    ):
        found = f"{len(labels)} entries" if isinstance(labels, dict | list) else repr(labels)
        raise CheckpointError(
            f"id2label has {found}, expected the names of the classes 0 to {count - 1} of these weights", where=where
        )
    return tuple(labels[index] for index in expected)


def check_built_in(hf: Json, *, is_backbone: bool, kind: str = "swin", where: str = "") -> None:
    """Raises CheckpointError naming every key for which our model has another value built in, with both. `kind` is that
    of the backbone."""
    backbone = hf if is_backbone else backbone_of(hf, where=where)
    problems = _differences(backbone, BUILT_IN_TO[kind])
    if not is_backbone:
        problems = [*_differences(hf, BUILT_IN), *(f"backbone_config.{problem}" for problem in problems)]
    if problems:
        raise CheckpointError(
            f"config.json asks for a model that computes something else: {'; '.join(problems)}",
            where=where,
            hint="these weights would give other results here than in transformers",
        )


def check_told(hf: Json, config: OneFormerConfig | BackboneConfig, *, has_text: bool, where: str = "") -> list[str]:
    """Compares what the arrays tell, `config`, with what Hugging Face's configuration says; `has_text`: they are with
    the text encoder.

    Returns the keys that are unknown here. Raises CheckpointError naming every key that says otherwise, with both.
    """
    if not isinstance(config, OneFormerConfig):
        ours, kind = backbone_architecture(config), backbone_to_json(config)["kind"]
        problems, unknown = _differences(hf, ours), _unknown(hf, ours, BUILT_IN_TO[kind], WITHOUT_EFFECT_ON[kind])
    else:
        ours = architecture(config)
        # Another width needs the layers that enforce_input_proj stands for.
        shown = ours | {"hidden_dim": ours["conv_dim"]}
        if not has_text:
            shown = {key: value for key, value in shown.items() if not key.startswith("text_encoder_")}
        problems, unknown = _differences(hf, shown), _unknown(hf, ours, BUILT_IN, WITHOUT_EFFECT | {"backbone_config"})
        of_backbone, place = backbone_of(hf, where=where), f"{where}: backbone_config"
        backbone = check_told(of_backbone, config.backbone, has_text=False, where=place)
        unknown += [f"backbone_config.{key}" for key in backbone]
    if problems:
        raise CheckpointError(
            f"config.json does not fit the arrays: {'; '.join(problems)}",
            where=where,
            hint="both must be of the same model",
        )
    return unknown


def _differences(hf: Json, ours: Json) -> list[str]:
    return [
        f"{key} is {hf[key]!r:.60}, expected {value!r}"
        for key, value in ours.items()
        if key in hf and not _same(hf[key], value)
    ]


def _unknown(hf: Json, *known: Collection[str]) -> list[str]:
    return sorted(hf.keys() - set().union(*known))


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, bool) or expected is None:
        return found is expected
    return bool(found == expected or (isinstance(expected, int) and found == [expected, expected]))


def backbone_architecture(backbone: BackboneConfig) -> dict[str, Any]:
    """What config.json says of the layers of a backbone that Hugging Face has."""
    if isinstance(backbone, DinatConfig):
        return dinat_architecture(backbone)
    if isinstance(backbone, RadioConfig):
        return radio_architecture(backbone)
    assert isinstance(backbone, SwinConfig)
    return swin_architecture(backbone)


def dinat_architecture(backbone: DinatConfig) -> dict[str, Any]:
    """What config.json says of the layers of a DiNAT."""
    dilations = backbone.dilations or tuple((1,) * depth for depth in backbone.depths)
    return {
        "embed_dim": backbone.embed_dim,
        "depths": list(backbone.depths),
        "num_heads": list(backbone.num_heads),
        "kernel_size": backbone.kernel_size,
        "dilations": [list(stage) for stage in dilations],
        "mlp_ratio": backbone.mlp_ratio,
        "drop_path_rate": backbone.drop_path_rate,
    }


def radio_architecture(backbone: RadioConfig) -> dict[str, Any]:
    """What config.json says of the layers of a RADIO, which Hugging Face has alone, without a OneFormer."""
    return {
        "hidden_size": backbone.embed_dim,
        "num_hidden_layers": backbone.depth,
        "num_attention_heads": backbone.num_heads,
        "mlp_ratio": backbone.mlp_width / backbone.embed_dim,
        "max_img_size": backbone.position_side * PATCH,
    }


def swin_architecture(backbone: SwinConfig) -> dict[str, Any]:
    """What config.json says of the layers of a Swin transformer."""
    return {
        "patch_size": backbone.patch_size,
        "embed_dim": backbone.embed_dim,
        "depths": list(backbone.depths),
        "num_heads": list(backbone.num_heads),
        "window_size": backbone.window_size,
        "mlp_ratio": backbone.mlp_ratio,
        "qkv_bias": backbone.qkv_bias,
        "hidden_dropout_prob": backbone.drop_rate,
        "attention_probs_dropout_prob": backbone.attn_drop_rate,
        "drop_path_rate": backbone.drop_path_rate,
    }


def architecture(config: OneFormerConfig) -> dict[str, Any]:
    """What config.json says of the layers of a model besides its backbone."""
    pixel, transformer, text = config.pixel_decoder, config.transformer, config.text_encoder
    return {
        "conv_dim": pixel.conv_dim,
        "mask_dim": pixel.mask_dim,
        "encoder_layers": pixel.num_layers,
        "encoder_feedforward_dim": pixel.dim_feedforward,
        "hidden_dim": transformer.hidden_dim,
        "num_queries": transformer.num_queries,
        "num_attention_heads": transformer.num_heads,
        "dim_feedforward": transformer.dim_feedforward,
        "decoder_layers": transformer.dec_layers,
        "query_dec_layers": transformer.class_dec_layers,
        "dropout": transformer.dropout,
        "pre_norm": transformer.pre_norm,
        "use_task_norm": transformer.use_task_norm,
        "task_seq_len": config.task_seq_len,
        "text_encoder_width": text.width,
        "text_encoder_context_length": text.context_length,
        "text_encoder_num_layers": text.num_layers,
        "text_encoder_vocab_size": text.vocab_size,
        "text_encoder_proj_layers": text.proj_num_layers,
        "text_encoder_n_ctx": text.n_ctx,
    }


def model_json(config: OneFormerConfig, labels: Sequence[str], *, training: bool) -> dict[str, Any]:
    """config.json of a model without `write_huggingface.obstacles`; what it leaves out has Hugging Face's default."""
    kind: dict[str, Any] = {"model_type": "dinat"}
    if isinstance(config.backbone, SwinConfig):
        kind = {"model_type": "swin", "image_size": config.backbone.pretrain_img_size}
    stages = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
    return {
        "architectures": ["OneFormerForUniversalSegmentation"],
        "model_type": "oneformer",
        "backbone_config": kind | stages | backbone_architecture(config.backbone),
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
        "is_training": training,
        "dtype": "float32",
        **architecture(config),
    }
