"""Every published key exists with its path, type, default, bounds and choices."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from oneformer_jax.app.spec import Spec, load_spec, unsupported_keys
from oneformer_jax.app.spec.field import expected, plain
from oneformer_jax.app.spec.tree import Leaf, leaves

LEAVES = {leaf.path: leaf for leaf in leaves(Spec)}


@pytest.fixture(scope="module")
def published(shared: Path) -> list[dict[str, str]]:
    with (shared / "reference" / "spec_keys.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_no_key_is_missing_and_no_other_is_there(published: list[dict[str, str]]) -> None:
    assert len(published) == 219
    extensions = {path for path, leaf in LEAVES.items() if leaf.key.extension}
    assert set(LEAVES) - extensions == {row["key"] for row in published}


def test_defaults(published: list[dict[str, str]]) -> None:
    """One device unless asked for more, and the number format that TAO's own templates give; all else as published."""
    for row in published:
        leaf = LEAVES[row["key"]]
        assert leaf.published_default == (json.loads(row["default(json)"]) if row["default(json)"] else None), leaf.path
        assert plain(Spec().value(leaf.path)) == leaf.default
    differing = {path: leaf.default for path, leaf in LEAVES.items() if leaf.default != leaf.published_default}
    assert differing == {"train.num_gpus": 1, "train.precision": "32"}


def test_types_choices_and_search_facts(published: list[dict[str, str]]) -> None:
    for row in published:
        leaf = LEAVES[row["key"]]
        automl = {True: "true", False: "false", None: ""}[leaf.automl]
        found = (leaf.type, automl, leaf.key.math_cond, "true" if leaf.key.popular else "")
        assert found == tuple(row[name] for name in ("type", "automl_enabled", "math_cond", "popular")), row["key"]
        assert sorted(leaf.enum) == sorted(filter(None, row["enum"].split("|"))), row["key"]
        assert leaf.pattern == row["pattern"], row["key"]


def test_bounds_are_published_and_enforced(published: list[dict[str, str]], tmp_path: Path) -> None:
    for row in published:
        leaf = LEAVES[row["key"]]
        for side, name in ((leaf.key.minimum, "minimum"), (leaf.key.maximum, "maximum")):
            assert side == (float(row[name]) if row[name] else None), row["key"]
        if leaf.key.minimum is not None:
            accepts(leaf, leaf.key.minimum) or leaf.key.only or pytest.fail(f"{leaf.path} refuses its minimum")
            assert not accepts(leaf, leaf.key.minimum - 1), row["key"]
        if leaf.key.maximum is not None and math.isfinite(leaf.key.maximum):
            assert accepts(leaf, leaf.key.maximum), row["key"]
            assert not accepts(leaf, leaf.key.maximum + 1), row["key"]


def accepts(leaf: Leaf, value: Any) -> bool:
    """Whether a section that sets only this key can be built."""
    data: Any = int(value) if leaf.type == "int" else value
    for name in reversed(leaf.path.split(".")):
        data = {name: data}
    try:
        Spec.model_validate(data)
    except ValueError:
        return False
    return True


def test_each_default_is_itself_acceptable_and_described() -> None:
    for leaf in LEAVES.values():
        if leaf.default is not None:
            assert accepts(leaf, leaf.default), leaf.path
        assert leaf.field.description, leaf.path
        assert expected(leaf.field), leaf.path
        assert leaf.key.honoured is True or leaf.key.note, leaf.path
        assert leaf.key.honoured is not True or leaf.key.only or not leaf.key.note, leaf.path
        TypeAdapter(leaf.field.annotation)


@pytest.mark.tao(33)
def test_published_templates_load_and_ask_for_nothing_that_is_missing(shared: Path) -> None:
    folder = shared / "reference" / "tao_skill" / "references"
    for action in ("train", "evaluate", "inference", "export", "quantize", "gen_trt_engine"):
        path = folder / f"spec_template_{action}.yaml"
        spec = load_spec(path)
        assert unsupported_keys(spec) == []
        published = yaml.safe_load(path.read_text())
        for name in LEAVES:
            node: Any = published
            for part in name.split("."):
                node = node.get(part) if isinstance(node, dict) else None
            if node is not None:
                assert plain(spec.value(name)) == node, name


def test_deployment_templates_load(shared: Path) -> None:
    folder = shared / "reference" / "tao_skill" / "references"
    spec = load_spec(folder / "spec_template_deploy_evaluate.yaml")
    assert spec.model.test.overlap_threshold == 0.8
    assert unsupported_keys(spec) == []
    engine = load_spec(folder / "spec_template_deploy_gen_trt_engine.yaml").gen_trt_engine
    assert engine.tensorrt.workspace_size == 8192


def test_the_spec_is_free_of_jax() -> None:
    code = "import sys, oneformer_jax.app.spec; sys.exit(any(m.split('.')[0] in ('jax', 'flax') for m in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Spec().train.num_epochs = 3
