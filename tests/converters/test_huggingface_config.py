"""What the tables say of each key of config.json is what transformers' own model does when the key changes."""

import json
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from state_dicts import in_memory

from converters.huggingface_config import (
    BUILT_IN,
    BUILT_IN_TO,
    BUILT_IN_TO_SWIN,
    READ,
    WITHOUT_EFFECT,
    WITHOUT_EFFECT_ON,
    WITHOUT_EFFECT_ON_SWIN,
    architecture,
    check_built_in,
    check_told,
    class_names,
    dinat_architecture,
    radio_architecture,
    swin_architecture,
    told,
)
from converters.weights import convert
from oneformer_jax.errors import CheckpointError
from oneformer_jax.models.backbones import DinatConfig, RadioConfig, SwinConfig
from oneformer_jax.models.config import OneFormerConfig

STAGES = ["stage1", "stage2", "stage3", "stage4"]
SWIN = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4, "out_features": STAGES}
TINY = {
    "num_labels": 3,
    "num_queries": 6,
    "conv_dim": 32,
    "mask_dim": 32,
    "hidden_dim": 32,
    "encoder_feedforward_dim": 64,
    "dim_feedforward": 64,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_attention_heads": 2,
    "task_seq_len": 16,
}
CHANGED: dict[str, Any] = {"layer_norm_eps": 1e-2, "enforce_input_proj": True}
CHANGED_IN_SWIN: dict[str, Any] = {"layer_norm_eps": 0.1, "hidden_act": "relu"}
NO_FIELD = {"is_training"}  # asks for texts in forward


def build(changes: dict[str, Any], swin_changes: dict[str, Any]) -> Any:
    swin = transformers.SwinConfig(**SWIN | swin_changes)
    torch.manual_seed(0)
    config = transformers.OneFormerConfig(backbone_config=swin, **TINY | changes)
    return transformers.OneFormerForUniversalSegmentation(config).eval()


@lru_cache
def original() -> Any:
    model = build({}, {})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


def logits(changes: dict[str, Any], swin_changes: dict[str, Any]) -> np.ndarray:
    """Of the same weights in a model with changed settings."""
    model = build(changes, swin_changes)
    model.load_state_dict(original().state_dict(), strict=False)
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.standard_normal((1, 3, 32, 64)).astype(np.float32))
    task = torch.from_numpy(rng.standard_normal((1, 16)).astype(np.float32))
    with torch.no_grad():
        return model(image, task).class_queries_logits.numpy()


def another(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    return 2 * value + 1 if isinstance(value, int | float) else "other"


@pytest.fixture(scope="module")
def folder() -> dict[str, Any]:
    """config.json of the tiny model."""
    return json.loads(original().config.to_json_string(use_diff=False))


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return {name: x.numpy() for name, x in original().state_dict().items()}


def test_every_key_of_transformers_is_decided() -> None:
    own, swin = architecture(OneFormerConfig()), swin_architecture(SwinConfig())
    keys = set(transformers.OneFormerConfig().to_dict()) - {"backbone_config"}
    assert keys <= own.keys() | BUILT_IN.keys() | WITHOUT_EFFECT
    assert set(transformers.SwinConfig().to_dict()) <= swin.keys() | BUILT_IN_TO_SWIN.keys() | WITHOUT_EFFECT_ON_SWIN
    assert not (own.keys() | BUILT_IN.keys()) & WITHOUT_EFFECT
    assert not (swin.keys() | BUILT_IN_TO_SWIN.keys()) & WITHOUT_EFFECT_ON_SWIN
    assert READ.keys() <= own.keys() | swin.keys()


OTHERS = {
    "dinat": (transformers.DinatConfig, dinat_architecture(DinatConfig())),
    "radio": (transformers.models.radio.RadioConfig, radio_architecture(RadioConfig())),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_every_key_of_other_backbones_is_decided(kind: str) -> None:
    theirs, ours = OTHERS[kind]
    assert set(theirs().to_dict()) <= ours.keys() | BUILT_IN_TO[kind].keys() | WITHOUT_EFFECT_ON[kind]
    assert not (ours.keys() | BUILT_IN_TO[kind].keys()) & WITHOUT_EFFECT_ON[kind]
    assert BUILT_IN_TO[kind].keys() <= set(theirs().to_dict())


@pytest.mark.parametrize(("kind", "key"), [(kind, key) for kind in OTHERS for key in BUILT_IN_TO[kind]])
def test_what_is_built_in_to_other_backbones_is_refused(kind: str, key: str) -> None:
    """`transformers` computes something else by each: DiNAT's needs natten to show it."""
    standard, value = OTHERS[kind][0]().to_dict(), another(BUILT_IN_TO[kind][key])
    check_built_in(standard, is_backbone=True, kind=kind)
    with pytest.raises(CheckpointError) as raised:
        check_built_in(standard | {key: value}, is_backbone=True, kind=kind, where="folder")
    assert f"{key} is {value!r}, expected {BUILT_IN_TO[kind][key]!r}" in str(raised.value)


@pytest.mark.slow
def test_what_is_without_effect_changes_nothing() -> None:
    def changed(config: Any, names: frozenset[str]) -> dict[str, Any]:
        fields = type(config).__dataclass_fields__
        values = {name: getattr(config, name) for name in names - NO_FIELD if name in fields}
        return {name: another(x) for name, x in values.items() if isinstance(x, bool | int | float)}

    base = original().config
    changes = changed(base, WITHOUT_EFFECT)
    swin_changes = changed(base.backbone_config, WITHOUT_EFFECT_ON_SWIN)
    for name in ("return_dict", "output_hidden_states", "output_attentions"):  # other outputs, not other values
        changes.pop(name, None), swin_changes.pop(name, None)
    assert {"class_weight", "init_std", "oversample_ratio"} <= changes.keys()
    assert {"image_size", "encoder_stride"} <= swin_changes.keys()
    np.testing.assert_array_equal(logits(changes, swin_changes), logits({}, {}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "key"), [*(("", key) for key in CHANGED), *(("backbone_config.", key) for key in CHANGED_IN_SWIN)]
)
def test_what_is_built_in_changes_the_result_and_is_refused(where: str, key: str, folder: dict[str, Any]) -> None:
    values = CHANGED_IN_SWIN if where else CHANGED
    change = {key: values[key]}
    outputs = logits({}, change) if where else logits(change, {})
    assert np.abs(outputs - logits({}, {})).max() > 1e-3

    changed = folder | ({"backbone_config": folder["backbone_config"] | change} if where else change)
    expected = (BUILT_IN_TO_SWIN if where else BUILT_IN)[key]
    with pytest.raises(CheckpointError) as raised:
        check_built_in(changed, is_backbone=False, where="folder")
    assert f"{where}{key} is {values[key]!r}, expected {expected!r}" in str(raised.value)


@pytest.mark.slow
def test_a_folder_of_transformers_converts_and_says_what_it_does_not_know(
    folder: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    rates = {"hidden_dropout_prob": 0.125, "attention_probs_dropout_prob": 0.25, "drop_path_rate": 0.5}
    told = {
        "pre_norm": True,
        "use_task_norm": False,
        "dropout": 0.0,
        "backbone_config": folder["backbone_config"] | rates,
    }
    converted = convert(in_memory(arrays, folder | told | {"added_later": 1}))
    config = converted.config
    assert isinstance(config, OneFormerConfig)
    assert isinstance(config.backbone, SwinConfig)
    backbone, transformer = config.backbone, config.transformer
    assert (transformer.pre_norm, transformer.use_task_norm, transformer.dropout) == (True, False, 0.0)
    assert (backbone.drop_rate, backbone.attn_drop_rate, backbone.drop_path_rate) == (0.125, 0.25, 0.5)
    assert converted.report.notes == ("not known in config.json, and taken to be without effect: added_later",)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_queries": 7}, "num_queries is 7, expected 6"),
        ({"num_attention_heads": 4}, "num_attention_heads is 4, expected 2"),
        ({"hidden_dim": 64}, "hidden_dim is 64, expected 32"),
        ({"pre_norm": "no"}, "pre_norm is 'no', expected true or false"),
        ({"dropout": 1.5}, "dropout is 1.5, expected a number from 0 to below 1"),
        (
            {"backbone_config": {"window_size": 7}},
            "backbone_config: config.json does not fit .*window_size is 7, expected 4",
        ),
        ({"backbone_config": {"mlp_ratio": 2.0}}, "mlp_ratio is 2.0, expected 4.0"),
        ({"backbone_config": {"model_type": "dinat"}}, "backbone_config.model_type is 'dinat', expected 'swin'"),
        ({"backbone_config": ["swin"]}, "backbone_config is .*, expected an object"),
        ({"use_timm_backbone": True}, "use_timm_backbone is True, expected False"),
        ({"backbone_config": {"use_absolute_embeddings": True}}, "use_absolute_embeddings is True, expected False"),
    ],
)
def test_settings_of_another_model_are_refused(
    change: dict[str, Any], message: str, folder: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    with pytest.raises(CheckpointError, match=message):
        convert(in_memory(arrays, folder | change))


def test_names_of_other_classes_are_refused() -> None:
    assert class_names({"id2label": {"1": "b", "0": "a"}}, 2) == ("a", "b")
    assert class_names({}, 2) == ()
    for labels in ({"0": "a"}, {"0": "a", "2": "b"}, {"0": "a", "1": None}, ["a", "b"], "ab"):
        with pytest.raises(CheckpointError, match="expected the names of the classes 0 to 1"):
            class_names({"id2label": labels}, 2)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = sorted({*architecture(OneFormerConfig()), *BUILT_IN, *BUILT_IN_TO_SWIN, "backbone_config", "id2label"})


@given(st.dictionaries(st.sampled_from(KEYS), json_values, max_size=4))
def test_any_json_is_taken_or_refused(hf: dict[str, Any]) -> None:
    with suppress(CheckpointError):
        check_built_in(hf, is_backbone=False)
    with suppress(CheckpointError):
        check_told(hf, OneFormerConfig(), has_text=True)
    with suppress(CheckpointError):
        class_names(hf, 2)
    for key in READ:
        with suppress(CheckpointError):
            told(hf, key, 0.5)
