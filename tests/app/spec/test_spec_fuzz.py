"""Whatever a spec file holds, loading ends in a spec or in a message, never in a traceback."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiers import examples

from oneformer_jax.app.spec import Spec, load_spec
from oneformer_jax.app.spec.tree import leaves
from oneformer_jax.errors import SpecError

EXAMPLES = examples(75)
PATHS = [leaf.path for leaf in leaves(Spec)]
SECTIONS = sorted({path.rpartition(".")[0] for path in PATHS} - {""})

words = st.sampled_from(
    [
        "",
        "???",
        "null",
        "~",
        "${train.seed}",
        "${nothing}",
        "${",
        "16-mixed",
        "WarmupPoly",
        "1e-3",
        "nan",
        ".inf",
        "a/b",
    ]
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), words, st.text(max_size=8), st.dates(), st.binary(max_size=4)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def loads_or_refuses(path: Path, overrides: tuple[str, ...] = ()) -> None:
    with suppress(SpecError):
        assert isinstance(load_spec(path, overrides), Spec)


def put(data: dict[str, Any], path: str, value: Any) -> None:
    *above, name = path.split(".")
    for part in above:
        if not isinstance(data.get(part), dict):
            data[part] = {}
        data = data[part]
    data[name] = value


@settings(max_examples=EXAMPLES)
@example({"model": {"task_toggling": {1: "a"}}})
@given(st.dictionaries(st.sampled_from(PATHS + SECTIONS), values, min_size=1, max_size=4))
def test_any_value_under_any_key(tmp_path_factory: pytest.TempPathFactory, given_keys: dict[str, Any]) -> None:
    data: dict[str, Any] = {}
    for path, value in given_keys.items():
        put(data, path, value)
    file = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    file.write_text(yaml.dump(data, allow_unicode=True), encoding="utf-8")
    loads_or_refuses(file)


@settings(max_examples=EXAMPLES)
@given(st.data())
def test_any_damage_to_the_text(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    text = (Path(__file__).parents[3] / "configs" / "quickstart.yaml").read_bytes()
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 40)))
    inserted = data.draw(
        st.binary(max_size=6) | st.sampled_from([b"\t", b": ", b"- ", b"&a ", b"*a", b"{", b"]", b"'"])
    )
    file = tmp_path_factory.getbasetemp() / "damaged.yaml"
    file.write_bytes(text[:start] + inserted + text[stop:])
    loads_or_refuses(file)


@settings(max_examples=EXAMPLES)
@given(st.sampled_from(PATHS + SECTIONS + ["train..lr", "", "nothing"]), st.text(max_size=12) | words)
def test_any_override(tmp_path_factory: pytest.TempPathFactory, path: str, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "empty.yaml"
    file.write_text("results_dir: runs\n")
    loads_or_refuses(file, (f"{path}={text}",))
