"""Training and evaluation on prepared shards, from the command line: the same numbers as on folders."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prepared(workspace: Path, command_line) -> Path:
    folder = workspace / "prepared"
    result = command_line("prepare", "-e", workspace / "spec.yaml", "--output", folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def keys(prepared: Path, results: Path) -> list[str]:
    emptied = [f"dataset.{split}.{key}=" for split in ("train", "val") for key in ("annotations", "panoptic")]
    images = [f"dataset.{split}.images=tfds://{prepared}" for split in ("train", "val")]
    return [*images, *emptied, f"results_dir={results}"]


def losses(folder: Path) -> list[dict[str, float]]:
    """What the log says of the last step and of each validation, but for the speed."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["kind"] == "validation" or line["step"] == 6]
    assert [line["kind"] for line in lines] == ["validation", "train", "validation"]
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]


@pytest.mark.prove  # in `make test` data/test_tfds.py shows that the batches are equal
def test_training_is_that_of_the_folders(
    workspace: Path, trained: Path, prepared: Path, command_line, tmp_path: Path
) -> None:
    result = command_line("train", "-e", workspace / "spec.yaml", *keys(prepared, tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert losses(tmp_path / "train") == losses(trained / "train")


def test_scores_are_those_of_the_folders(
    workspace: Path, trained: Path, prepared: Path, command_line, tmp_path: Path
) -> None:
    spec, metrics = workspace / "spec.yaml", []
    for results, more in ((tmp_path / "shards", keys(prepared, tmp_path / "shards")), (tmp_path / "folders", [])):
        given = [*more, f"results_dir={results}", f"evaluate.checkpoint={trained / 'train'}"]
        result = command_line("evaluate", "-e", spec, *given)
        assert result.returncode == 0, result.stdout + result.stderr
        metrics.append(json.loads((results / "evaluate" / "metrics.json").read_text()))
    assert metrics[0] == metrics[1]
    assert metrics[0]["num_images"] == 3
