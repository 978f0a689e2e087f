"""When a training goes through AutoML."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from oneformer_jax.app.automl.policy import SKILL, Policy, action_for_training, route_training, train_schema
from oneformer_jax.app.cli.commands import app
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.errors import OneFormerError, install_hint

SCHEMA, TEMPLATE = "schemas/train.schema.json", "references/spec_template_train.yaml"


@pytest.fixture
def skill(tmp_path: Path) -> Path:
    shutil.copytree(SKILL, tmp_path / "skill")
    return tmp_path / "skill"


@pytest.mark.parametrize(("policy", "command"), [("auto", "automl"), ("on", "automl"), ("off", "train")])
@pytest.mark.parametrize("where", [SKILL, None])
def test_the_policy_decides_where_all_is_there(policy: Policy, command: str, where: Path | None) -> None:
    assert route_training(policy, where).command == command


@pytest.mark.parametrize("policy", ["auto", "on"])
@pytest.mark.parametrize(("name", "content"), [(SCHEMA, None), (TEMPLATE, None), (SCHEMA, "{"), (TEMPLATE, "a: [")])
def test_without_schema_or_template_the_training_is_direct_and_says_so(
    policy: Policy, name: str, content: str | None, skill: Path
) -> None:
    (skill / name).unlink() if content is None else (skill / name).write_text(content)
    route = route_training(policy, skill)
    assert route.command == "train"
    assert "AutoML is enabled but cannot run until `oneformer schema" in route.reason
    assert name in route.reason


@pytest.mark.parametrize("content", [None, "automl_enabled: false\n", "{"])
def test_a_model_that_is_not_enabled_trains_directly(content: str | None, skill: Path) -> None:
    path = skill / "references" / "skill_info.yaml"
    path.unlink() if content is None else path.write_text(content)
    route = route_training("on", skill)
    assert (route.command, "not enabled" in route.reason) == ("train", True)


def test_without_optuna_auto_is_direct_and_says_so_and_on_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "optuna" else found(name, *rest)
    )
    route = route_training("auto")
    assert route.command == "train"
    assert install_hint("automl") in route.reason
    with pytest.raises(OneFormerError, match="AutoML needs Optuna"):
        route_training("on")
    (tmp_path / "spec.yaml").write_text(f"results_dir: {tmp_path}")
    result = CliRunner().invoke(app, ["train", "-e", str(tmp_path / "spec.yaml"), "--automl-policy", "on"])
    assert result.exit_code == 1
    assert f"AutoML needs Optuna, which is not installed\n  -> {install_hint('automl')}" in result.stderr
    last = json.loads((tmp_path / "automl" / "status.json").read_text().splitlines()[-1])
    assert (last["status"], last["message"].splitlines()[0]) == (
        "FAILURE",
        "AutoML needs Optuna, which is not installed",
    )


def test_the_option_counts_before_the_spec_and_neither_means_a_training(tmp_path: Path) -> None:
    def action(text: str, policy: Policy | None, *overrides: str) -> str:
        path = tmp_path / "spec.yaml"
        path.write_text(text)
        return action_for_training(path, list(overrides), policy, Screen(quiet=True))

    assert action("{}", None) == "train"
    assert action("{}", "auto") == "automl"
    assert action("automl_policy: on", None) == "automl"  # a truth value to YAML
    assert action("automl_policy: off", None) == "train"
    assert action("automl_policy: auto", "off") == "train"
    assert action("automl_policy: off", "on") == "automl"
    assert action("{}", None, "automl_policy=on") == "automl"
    assert action("{}", "on", f"automl.skill_dir={tmp_path}") == "train"
    assert action("train: {num_epoch: 3}", "on") == "train"  # where the error is reported


def test_a_schema_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    assert train_schema(None) == train_schema(SKILL)
    with pytest.raises(OneFormerError, match=r"train\.schema\.json: no schema can be read"):
        train_schema(tmp_path)
