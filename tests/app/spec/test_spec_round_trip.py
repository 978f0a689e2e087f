"""A spec that is written and read again is the same spec."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import examples

from oneformer_jax.app.spec import Spec, dump_yaml, load_spec
from oneformer_jax.app.spec.source import nearest, parse_value

# Any text that YAML can hold and that means itself (??? is a missing value).
PIECES = st.lists(st.sampled_from(["\\", "${", "}", "a", " ", "'", ":"]), max_size=6).map("".join)
TEXTS = (PIECES | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)).filter(lambda text: text != "???")
PLACES = TEXTS.filter(lambda text: "\0" not in text)  # which no path has
NUMBERS = st.floats(0, 1, width=32, allow_subnormal=False)
COUNTS = st.integers(1, 2**31 - 1)
EDGES = st.integers(1, 32768)

TRAIN = st.fixed_dictionaries(
    {},
    optional={
        "seed": COUNTS,
        "results_dir": PLACES,
        "freeze": st.lists(TEXTS, max_size=3),
        "iters_per_epoch": st.none() | COUNTS,
        "optim": st.fixed_dictionaries(
            {},
            optional={
                "lr": NUMBERS,
                "gamma": st.floats(allow_nan=False, allow_infinity=False, width=32, allow_subnormal=False),
                "steps": st.lists(COUNTS),
            },
        ),
        "precision": st.sampled_from(["fp32", "32", "bf16", "16-mixed"]),
    },
)
DATASET = st.fixed_dictionaries(
    {},
    optional={
        "label_map": PLACES,
        "image_size": EDGES | st.tuples(EDGES, EDGES),
        "train": st.fixed_dictionaries({}, optional={"images": PLACES | st.lists(PLACES), "batch_size": COUNTS}),
        "task_prob_train": st.fixed_dictionaries({"semantic": st.floats(0.1, 1)}, optional={"panoptic": NUMBERS}),
    },
)
QUANTIZE = st.fixed_dictionaries(
    {},
    optional={
        "layers": st.lists(
            st.fixed_dictionaries({"module_name": TEXTS, "weights": st.dictionaries(st.just("dtype"), TEXTS)}),
            max_size=2,
        ),
    },
)
SPECS = st.builds(
    Spec.model_validate,
    st.fixed_dictionaries({}, optional={"train": TRAIN, "dataset": DATASET, "quantize": QUANTIZE, "model_name": TEXTS}),
)


def reread(spec: Spec) -> Spec:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "experiment.yaml"
        path.write_text(dump_yaml(spec), encoding="utf-8")
        return load_spec(path)


@settings(max_examples=examples(40))
@given(SPECS)
def test_round_trip(spec: Spec) -> None:
    assert reread(spec) == spec


@pytest.mark.tao(32)
def test_defaults_survive_and_the_encryption_key_does_not() -> None:
    assert reread(Spec()) == Spec()
    spec = Spec(encryption_key="secret", results_dir="/r")
    assert "secret" not in dump_yaml(spec)
    assert reread(spec).results_dir == "/r"


@pytest.mark.parametrize("text", ["0E0", "1e-4", "1_000.5", ".inf", "2024-01-01", "on", "null", "1:30"])
def test_text_that_looks_like_something_else_stays_text(text: str) -> None:
    assert reread(Spec(model_name=text)).model_name == text


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.booleans())
def test_scalars_are_read_as_they_are_written(value: Any) -> None:
    found = parse_value(yaml.safe_dump(value).removesuffix("...\n"))
    assert found == value
    assert type(found) is type(value)
    if isinstance(value, float):
        assert parse_value(f"{value!r}") == value  # 1e-05 has no dot


@given(st.text(max_size=30))
def test_some_key_or_none_is_nearest_to_any_text(text: str) -> None:
    known = ["train", "train.optim", "train.optim.lr"]
    assert nearest(text, known) in (*known, "")
