"""`predict` with an exported model; that with a checkpoint is in e2e/test_predict.py."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from click.testing import Result
from small_graph import small_model
from typer.testing import CliRunner

from oneformer_jax import load_model
from oneformer_jax.app.cli import commands
from oneformer_jax.app.run.status import only_process_in
from oneformer_jax.predict.exported import OnnxBackend
from oneformer_jax.predict.predictor import Predictor

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: five pictures of several sizes, and a model that takes two at once."""
    onnx.save(small_model(2), tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    for number, (height, width) in enumerate([(40, 50), (60, 20), (40, 50), (33, 33), (50, 40)]):
        (tmp_path / "photos").mkdir(exist_ok=True)
        cv2.imwrite(tmp_path / "photos" / f"{number}.png", rng.integers(0, 256, (height, width, 3), np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(commands.app, ["predict", "model.onnx", *words])


def test_batches_are_full_and_results_are_no_sources(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    pending = Predictor.pending_batch

    def counted(self: Predictor, images: Any, *arguments: Any) -> Any:
        sizes.append(len(images))
        return pending(self, images, *arguments)

    monkeypatch.setattr(Predictor, "pending_batch", counted)
    for name in ("predictions", "predictions-2"):
        result = run(".", "--task", "instance", "--threshold", "0.05")
        assert result.exit_code == 0, result.output
        assert f"5 images (instance): {name}/instance" in result.output
    assert "5 pictures are results of earlier predictions, and left out" in result.output
    assert sizes == [2] * 6, "of a model of one size all pictures are alike"
    found = json.loads((here / "predictions" / "instance" / "instance.json").read_text())
    model = load_model(here / "model.onnx")
    expected = [
        instance.score
        for path in sorted((here / "photos").iterdir())
        for instance in model.predict(path, "instance").instance or ()
        if instance.score >= 0.05
    ]
    assert expected
    assert [entry["score"] for entry in found] == pytest.approx(expected, rel=1e-4)


def test_large_pictures_are_predicted_in_tiles(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results are those of the library, in full batches; a picture that is no larger than a tile is seen whole."""
    words = ["photos", "--task", "semantic", "--format", "png", "--tile", "32", "--overlap", "8", "-o", "out"]
    sizes: list[int] = []
    backend_predict = OnnxBackend.predict

    def counted(self: OnnxBackend, images: Any, *arguments: Any) -> Any:
        sizes.append(len(images))
        return backend_predict(self, images, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(OnnxBackend, "predict", counted)
        assert run(*words).exit_code == 0
    assert sizes == [2] * 10, "4 + 3 + 4 + 4 + 4 tiles"
    model = load_model(here / "model.onnx")
    for path in (here / "photos").iterdir():
        expected = model.predict(path, "semantic", tile=32, overlap=8).semantic
        np.testing.assert_array_equal(cv2.imread(here / "out" / "semantic" / path.name, -1), expected)
    whole, large = model.predict([path, path], "semantic", tile=64, overlap=8)[0], model.predict(path, "semantic")
    np.testing.assert_array_equal(whole.semantic, large.semantic)
    lazily = model((path for path in [path]), "semantic", tile=32, overlap=8)
    np.testing.assert_array_equal(next(lazily).semantic, expected)
    with pytest.raises(ValueError, match="an overlap without tiles"):
        model.predict(path, overlap=8)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--tile", "32", "--overlap", "17"], "--overlap 17: tiles of 32 pixels share 16 at most"),
        (["--overlap", "17"], "--overlap 17: no --tile is given"),
    ],
)
def test_tiles_that_do_not_go(here: Path, words: list[str], told: str) -> None:
    result = run("photos", *words)
    assert result.exit_code == 2
    assert told in " ".join(result.output.replace("│", " ").split())


def test_it_says_where_nothing_is_found(here: Path) -> None:
    result = run("photos/0.png", "--threshold", "1")
    assert result.exit_code == 0, result.output
    assert "nothing to draw in 1 of them: no segment reaches --threshold, 1.0" in result.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["photos", "--batch-size", "3"], "batch"),
        (["photos", "-o", "used"], "1 files that do not belong to the results of these images"),
        (["photos", "-o", "model.onnx"], "File exists"),
    ],
)
def test_what_does_not_go_changes_nothing(here: Path, words: list[str], told: str) -> None:
    (here / "used" / "panoptic").mkdir(parents=True)
    (here / "used" / "panoptic" / "mine.txt").write_text("mine")
    before = sorted(path for path in here.rglob("*") if path.name != ".lock")
    result = run(*words)
    assert result.exit_code == 1, result.output
    assert told in result.output
    assert sorted(path for path in here.rglob("*") if path.name != ".lock") == before


def test_an_interrupted_run_says_where_its_results_are(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = iter([True])

    def interrupt(*_: object) -> bool:
        if next(done, False):
            return True
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("oneformer_jax.app.actions.inference._found", interrupt)
        result = run("photos")
    assert result.exit_code == 130, result.output
    assert "interrupted (Ctrl-C)\n  -> what is done is in predictions; the same command with --output" in result.output
    assert len(json.loads((here / "predictions/panoptic/panoptic.json").read_text())["images"]) == 2
    assert run("photos", "-o", "predictions").exit_code == 0
    assert len(json.loads((here / "predictions/panoptic/panoptic.json").read_text())["images"]) == 5


def test_a_folder_that_somebody_works_in_is_left_alone(here: Path) -> None:
    (here / "out").mkdir()
    with only_process_in(here / "out"):
        result = run("photos", "-o", "out")
    assert result.exit_code == 1
    assert "or use another --output" in result.output
    assert [path.name for path in (here / "out").iterdir()] == [".lock"]
