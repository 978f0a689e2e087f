"""A training on broken data ends with exit code 1, the defect and its place, and leaves what is there as it is."""

import json
import re
import shutil
from pathlib import Path

import pytest
from defects import DEFECTS
from typer.testing import CliRunner

from oneformer_jax.app.cli.commands import app
from oneformer_jax.data.drawn_shapes import write_drawn_shapes

MESSAGES = {name: message for name, (_, message) in DEFECTS.items()} | {
    # What lies nowhere is told with its key before any file is read.
    "missing folder": r"dataset\.train\.images: .*/images: no such file or folder",
    "missing JSON": r"dataset\.train\.annotations: .*/annotations\.json: no such file or folder",
}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_drawn_shapes(folder, {"train": 4}, size=64, seed=1)
    return folder / "train"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.tao(22)
@pytest.mark.parametrize("name", DEFECTS)
def test_each_defect_ends_the_run_before_it_touches_anything(
    name: str, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    message = MESSAGES[name]
    data = Path(shutil.copytree(drawn, tmp_path / "data"))
    DEFECTS[name][0](data)
    run = tmp_path / "results" / "train"
    (run / "checkpoints" / "7" / "params").mkdir(parents=True)
    for file in ("checkpoints/7/params/array", "log.jsonl", "curves.png"):
        (run / file).write_text(f"of an earlier run: {file}")
    earlier, broken = contents(run), contents(data)
    keys = {"images": data / "images", "panoptic": data / "panoptic", "annotations": data / "annotations.json"}
    (tmp_path / "spec.yaml").write_text(
        f"results_dir: {tmp_path / 'results'}\ndataset:\n  train: {json.dumps(keys, default=str)}\n"
    )

    result = CliRunner().invoke(app, ["train", "--spec", str(tmp_path / "spec.yaml")])

    assert result.exit_code == 1
    assert re.search(message, result.stderr)
    assert "Traceback" not in result.stderr
    last = json.loads((run / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "FAILURE"
    assert re.search(message, last["message"])
    assert contents(data) == broken
    after = contents(run)
    assert {path: after.pop(path) for path in earlier} == earlier
    assert {path.name for path in after} == {"status.json", "experiment.yaml", ".lock"}
