"""What a checkpoint says of itself: read back, whichever version wrote it, or refused by the name of the field."""

import json
import logging
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_checkpoints import describe

from oneformer_jax.checkpoints.description import REQUIRED, Description, Training
from oneformer_jax.errors import CheckpointError

TRAINING = Training(24, 4, "PQ", 7, {"lr": 0.1, "decay_steps": [3, 5], "epochs": 2}, images=40, epochs=Fraction(5, 3))
FULL = replace(describe(9, PQ=0.5), training=TRAINING)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def content() -> dict[str, Any]:
    return json.loads(json.dumps(FULL.to_json()))


def test_what_it_was_trained_with_comes_back() -> None:
    assert Description.from_json(content()) == FULL
    old = content()
    del old["training"]
    assert Description.from_json(old) == replace(FULL, training=None)


def test_fields_of_a_newer_version_are_kept_and_said(caplog: pytest.LogCaptureFixture) -> None:
    newer = content() | {"licence": ["x"], "thresholds": content()["thresholds"] | {"colour": 3}}
    newer["training"] |= {"hours": 5}
    with caplog.at_level(logging.WARNING):
        found = Description.from_json(newer, where="run/9")
    beyond = {"licence": ["x"], "thresholds": {"colour": 3}, "training": {"hours": 5}}
    assert found == replace(FULL, unknown=beyond)
    assert "newer version: licence, thresholds.colour, training.hours not used here" in caplog.text
    assert json.loads(json.dumps(found.to_json())) == newer


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_field_is_named(name: str) -> None:
    damaged = content()
    del damaged[name]
    with pytest.raises(CheckpointError, match=f"run/9: its description lacks {name}\n"):
        Description.from_json(damaged, where="run/9")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model", 3),
        ("pixel_std", [1.0, 0, 1.0]),
        ("pixel_std", [1.0, 1e-60, 1.0]),
        ("pixel_mean", [1.0, 1e300, 1.0]),
        ("model", {"kernel_fusion": True}),
        ("model.backbone", {"kind": "swin", "colour": 1}),
        ("categories", []),
        ("pixel_std", [1.0, 2.0]),
        ("spec", "yaml"),
        ("step", "4"),
        ("step", -1),
        ("metrics", {"PQ": None}),
        ("absent", "text_encoder"),
        ("policy", {"min_size": 3}),
        ("thresholds", {"overlap_threshold": [1]}),
        ("training", {"images": 3}),
        ("thresholds", {"object_mask_threshold": float("nan")}),
        ("thresholds", {"object_mask_threshold": 7}),
        ("thresholds", {"test_topk_per_image": -4}),
        ("thresholds", {"test_topk_per_image": 1.5}),
        ("training.epochs", "1/0"),
        ("training.epochs", "-3"),
        ("training.epochs", "1e99999"),
        ("training.monitor", 3),
        ("training.images_per_step", 0),
        ("training.images", 2.5),
    ],
)
def test_a_field_of_another_type_is_named(path: str, value: object) -> None:
    damaged = place = content()
    *parents, last = path.split(".")
    for name in parents:
        place = place[name]
    place[last] = value
    with pytest.raises(CheckpointError, match=f"run/9: `{path.split('.')[0]}` in its description cannot be used: "):
        Description.from_json(damaged, where="run/9")


@given(name=st.sampled_from(sorted(FULL.to_json())), value=JSON_VALUES)
def test_whatever_a_field_holds_it_is_read_or_refused(name: str, value: object) -> None:
    with suppress(CheckpointError):
        Description.from_json(content() | {name: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_classes", "a"),
        ("num_classes", -1),
        ("task_seq_len", None),
        ("task_pad_id", "a"),
        ("backbone.depths", [10**6] * 4),
        ("backbone.num_heads", [0, 0, 0, 0]),
        ("backbone.embed_dim", 10**12),
        ("backbone.window_size", "x"),
        ("backbone.init", "x"),
        ("backbone.patch_norm", "a"),
        ("backbone.newer", 1),
        ("transformer.num_queries", -1),
        ("pixel_decoder.newer", 1),
    ],
)
def test_a_model_that_there_is_not_is_refused(field: str, value: object) -> None:
    stored = content()
    *path, name = field.split(".")
    part = stored["model"]
    for key in path:
        part = part[key]
    part[name] = value
    with pytest.raises(CheckpointError):
        Description.from_json(stored, where="here").shapes()


@pytest.mark.parametrize(
    "policy", [{"min_size": None}, {"max_size": 0}, {"min_size": "a"}, {"max_size": 10**9}, {"squeeze": [0, 5]}]
)
def test_a_policy_of_no_pixels_is_refused(policy: dict[str, object]) -> None:
    stored = content()
    stored["policy"] |= policy
    with pytest.raises(CheckpointError, match="`policy` in its description cannot be used"):
        Description.from_json(stored)


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(CheckpointError, match="not a JSON object"):
        Description.from_json([1], where="run/9")
