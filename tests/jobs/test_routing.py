"""When a training goes through AutoML."""

import shutil
from pathlib import Path

import pytest

from oneformer_jax.jobs.routing import SKILL, Policy, route_training

SCHEMA, TEMPLATE = "schemas/train.schema.json", "references/spec_template_train.yaml"


@pytest.fixture
def skill(tmp_path: Path) -> Path:
    shutil.copytree(SKILL, tmp_path / "skill")
    return tmp_path / "skill"


@pytest.mark.parametrize(("policy", "reason"), [("auto", "not there yet"), ("on", "not there yet"), ("off", "is off")])
def test_the_policy_decides_where_all_is_there(policy: Policy, reason: str) -> None:
    assert reason in route_training(policy).reason


@pytest.mark.parametrize("policy", ["auto", "on"])
@pytest.mark.parametrize(("name", "content"), [(SCHEMA, None), (TEMPLATE, None), (SCHEMA, "{"), (TEMPLATE, "a: [")])
def test_without_schema_or_template_the_training_is_direct_and_says_so(
    policy: Policy, name: str, content: str | None, skill: Path
) -> None:
    (skill / name).unlink() if content is None else (skill / name).write_text(content)
    route = route_training(policy, skill)
    assert route.command == "train"
    assert "AutoML is enabled but cannot run until `python cli.py schema" in route.reason
    assert name in route.reason


@pytest.mark.parametrize("content", [None, "automl_enabled: false\n", "{"])
def test_a_model_that_is_not_enabled_trains_directly(content: str | None, skill: Path) -> None:
    path = skill / "references" / "skill_info.yaml"
    path.unlink() if content is None else path.write_text(content)
    route = route_training("on", skill)
    assert (route.command, "not enabled" in route.reason) == ("train", True)
