"""What training and validation must have in common, for each command that begins with them; and what a search takes as
its score where nothing names one."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import oneformer_jax.app.actions.automl as action
from oneformer_jax.app.automl.request import SearchRun
from oneformer_jax.app.cli.commands import app
from oneformer_jax.data.drawn_shapes import write_drawn_shapes
from oneformer_jax.writing import write_json

Content = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Drawn shapes with a spec that names no label map: the classes are those of the annotations."""
    monkeypatch.setenv("ONEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    write_drawn_shapes(tmp_path, {"train": 4, "val": 2}, size=64, seed=5)
    splits = {
        split: {name: str(tmp_path / split / name) for name in ("images", "panoptic")}
        | {"annotations": str(tmp_path / split / "annotations.json")}
        for split in ("train", "val")
    }
    spec = {"results_dir": str(tmp_path / "results"), "dataset": splits, "model": {"sem_seg_head": {"num_classes": 7}}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    return tmp_path


def change(file: Path, **changes: Any) -> None:
    """`changes`: functions of the values of these keys."""
    content = json.loads(file.read_text())
    write_json(file, content | {key: new(content[key]) for key, new in changes.items()})


def turned(categories: list[Content]) -> list[Content]:
    """The same classes in the reverse order."""
    return categories[::-1]


def flipped(categories: list[Content]) -> list[Content]:
    """The first class is stuff where it was a thing, and the other way round."""
    return [{**categories[0], "isthing": 1 - categories[0]["isthing"]}, *categories[1:]]


def stuff(categories: list[Content]) -> list[Content]:
    return [category | {"isthing": 0} for category in categories]


@pytest.mark.parametrize("command", [("inspect", "data"), ("train",), ("automl",)], ids=" ".join)
@pytest.mark.parametrize(("new", "word"), [(turned, "order"), (flipped, "thing")])
def test_validation_on_other_classes_ends_each_command(folder: Path, command: tuple, new: Any, word: str) -> None:
    change(folder / "val" / "annotations.json", categories=new)
    result = CliRunner().invoke(app, [*command, "--spec", str(folder / "spec.yaml")])
    assert result.exit_code == 1, result.output
    said = " ".join(result.output.split())
    assert word in said
    assert "dataset.val" in said
    assert "dataset.train" in said
    assert not list((folder / "results").rglob("checkpoints"))


@pytest.mark.slow
def test_outputs_that_no_class_of_the_data_has_are_said(folder: Path) -> None:
    keys = ["model.sem_seg_head.num_classes=9"]
    result = CliRunner().invoke(app, ["inspect", "data", "--spec", str(folder / "spec.yaml"), *keys])
    assert result.exit_code == 0, result.output
    said = " ".join(result.output.split())
    assert said.count("2 of the model's 9 classes are none of the data's: set model.sem_seg_head.num_classes: 7") == 1


@pytest.mark.parametrize(
    ("tasks", "kept", "score"),
    [
        (("instance", "panoptic"), "stuff", "PQ"),  # AP, the first, has no value without things
        (("instance", "panoptic"), "all", "AP"),
        (("semantic", "instance", "panoptic"), "stuff", "mIoU"),
    ],
)
def test_a_search_goes_by_a_score_that_validation_defines(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tasks: tuple[str, ...], kept: str, score: str
) -> None:
    for split in ("train", "val"):
        change(folder / split / "annotations.json", categories=stuff if kept == "stuff" else list)
    asked: list[SearchRun] = []
    monkeypatch.setattr(action, "search", lambda settings, run: asked.append(settings))
    chosen = [f"model.test.{task}_on={str(task in tasks).lower()}" for task in ("semantic", "instance", "panoptic")]
    result = CliRunner().invoke(app, ["automl", "--spec", str(folder / "spec.yaml"), *chosen])
    assert result.exit_code == 0, result.output
    assert asked[0].metric == score
    assert asked[0].identity["automl.metric"] == score
    assert asked[0].trials.always["train.monitor"] == score
