"""`default_specs` and `schema` on the command line."""

import dataclasses
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from oneformer_jax.app.cli.commands import app
from oneformer_jax.app.settings.deployment import export_run
from oneformer_jax.app.settings.evaluation import evaluation_run, inference_run
from oneformer_jax.app.settings.training import training_run
from oneformer_jax.app.spec import Spec, load_spec
from oneformer_jax.app.spec.dotted import flat
from oneformer_jax.app.spec.published.bundle import bundle
from oneformer_jax.app.spec.published.schema import ACTIONS
from oneformer_jax.app.spec.tree import leaves


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("action", ACTIONS)
def test_a_template_is_printed_for_each_action(action: str) -> None:
    result = run("default_specs", action)
    assert result.exit_code == 0
    written = flat(yaml.safe_load(result.stdout), {leaf.path for leaf in leaves(Spec)})
    belong = {leaf.path: leaf for leaf in leaves(Spec) if leaf.path.split(".")[0] in (action, "dataset", "model")}
    for path, leaf in belong.items():
        if leaf.key.unset:
            assert path not in written
            assert f"# {leaf.name}: " in result.stdout
        elif leaf.default is not None:
            assert written[path] == leaf.default
        else:
            assert f"# {leaf.name}:  # {leaf.field.description}" in result.stdout
    assert "dataset.on_bad_annotation" in written


@pytest.mark.parametrize("action", ["evaluate", "inference", "export"])
def test_a_template_means_what_an_empty_spec_means(action: str, tmp_path: Path) -> None:
    """What a model was trained with counts in place of a default that nobody chose."""
    assert run("default_specs", action, "-o", tmp_path / "spec.yaml").exit_code == 0
    given = [f"{action}.checkpoint={tmp_path}", "dataset.label_map=map.json", "export.include_postprocess=panoptic"]
    given += [f"dataset.test.{name}={tmp_path}" for name in ("images", "annotations", "panoptic")]
    written, empty = load_spec(tmp_path / "spec.yaml", given), load_spec(None, given)
    assert written.to_dict() == empty.to_dict()
    settings = {"evaluate": evaluation_run, "inference": inference_run, "export": export_run}[action]
    described = dataclasses.asdict(settings(written))
    model = described if action == "export" else described["model"]
    model["stated"] |= {"architecture": {}, "statistics": None}  # those of the model count, whatever a spec says
    assert described == dataclasses.asdict(settings(empty))


def test_the_template_of_training_decides_nothing(tmp_path: Path) -> None:
    assert run("default_specs", "train", "-o", tmp_path / "spec.yaml").exit_code == 0
    given = [f"dataset.{split}.{name}={tmp_path}" for split in ("train", "val") for name in ("images", "annotations")]
    written, empty = (training_run(load_spec(path, given), tmp_path) for path in (tmp_path / "spec.yaml", None))
    assert written == empty
    assert written.devices.count == 1
    assert written.tracking is None


def test_without_an_action_all_are_there() -> None:
    assert set(ACTIONS) < set(yaml.safe_load(run("default_specs").stdout))


@pytest.mark.tao(40)
def test_the_folder_comes_as_an_option_an_override_or_from_a_spec(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(f"results_dir: {tmp_path}/d\n")
    forms = {
        "a": ["--results_dir", tmp_path / "a"],
        "b": ["-r", tmp_path / "b"],
        "c": [f"results_dir={tmp_path}/c"],
        "d": ["-e", tmp_path / "spec.yaml"],
        "e": ["--output", tmp_path / "e", "-e", tmp_path / "spec.yaml"],
    }
    for name, arguments in forms.items():
        result = run("default_specs", "train", *arguments)
        assert result.exit_code == 0, result.output
        assert (tmp_path / name / "experiment.yaml").read_text() == run("default_specs", "train").stdout


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "mine.yaml"
    assert run("default_specs", "export", "-o", path).exit_code == 0
    path.write_text("mine")
    result = run("default_specs", "export", "-o", path)
    assert result.exit_code == 1
    assert "mine.yaml: exists already" in result.output
    assert path.read_text() == "mine"


def test_wrong_usage() -> None:
    assert run("default_specs", "segment").exit_code == 2
    assert run("default_specs", "train", "evaluate").exit_code == 2
    result = run("default_specs", "train", "result_dir=/x")
    assert result.exit_code == 1
    assert "did you mean results_dir?" in result.output


@pytest.mark.slow
def test_schema_writes_the_bundle(tmp_path: Path) -> None:
    assert run("schema", "--output", tmp_path / "skill").exit_code == 0
    for name, text in bundle().items():
        assert (tmp_path / "skill" / name).read_text() == text
