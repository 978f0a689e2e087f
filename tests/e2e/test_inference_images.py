"""Where inference finds its images, and how many at a time."""

import json
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.tao(17, 18, 25)
def test_images_of_the_test_split_in_an_archive_of_any_suffix(
    workspace: Path, trained: Path, command_line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`inference.images_dir` is unset, the archive one folder too high, a suffix in capitals, the batch too large."""
    (tmp_path / "pack" / "images").mkdir(parents=True)
    for path in (workspace / "data" / "val" / "images").iterdir():
        shutil.copy(path, tmp_path / "pack" / "images" / f"{path.stem}.JPG")
    archive = shutil.make_archive(str(tmp_path / "images"), "gztar", tmp_path / "pack")
    monkeypatch.setenv("ONEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    result = command_line(
        "inference",
        "-e",
        workspace / "spec.yaml",
        f"results_dir={tmp_path}",
        f"inference.checkpoint={trained / 'train'}",
        f"dataset.test.images={archive}",
        "inference.batch_size=8",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    last = json.loads((tmp_path / "inference" / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "SUCCESS"
    overlays = list((tmp_path / "inference" / "semantic").glob("*.jpg"))
    assert len(overlays) == len(list((tmp_path / "pack" / "images").iterdir()))


@pytest.mark.tao(17)
def test_pictures_that_cannot_be_read_are_skipped_and_the_others_done(
    workspace: Path, trained: Path, command_line, tmp_path: Path
) -> None:
    """Inference and evaluation do all that can be done, say what cannot and why, and do not end as if all were well."""
    shutil.copytree(workspace / "data" / "val", tmp_path / "val")
    first, second, third = sorted((tmp_path / "val" / "images").iterdir())
    second.write_bytes(second.read_bytes()[:300])
    checkpoint, folder = trained / "train", tmp_path / "results"
    images = {key: f"dataset.val.{key}={tmp_path / 'val' / key}" for key in ("images", "panoptic")}
    for action, keys in (
        ("inference", [f"inference.images_dir={second.parent}", "inference.mode=panoptic", "inference.batch_size=1"]),
        ("evaluate", [*images.values(), f"dataset.val.annotations={tmp_path / 'val' / 'annotations.json'}"]),
    ):
        words = [f"results_dir={folder}", f"{action}.checkpoint={checkpoint}", *keys]
        result = command_line(action, "-e", workspace / "spec.yaml", *words)
        assert result.returncode == 1, result.stdout + result.stderr
        assert "1 image could not be used and had to be skipped" in result.stderr
        assert "Traceback" not in result.stderr
        lines = [json.loads(line) for line in (folder / action / "status.json").read_text().splitlines()]
        (warning,) = (line["message"] for line in lines if line["message"].startswith("skipped: "))
        assert f"{second}" in warning
        assert "cannot be read" in warning
        assert lines[-1]["status"] == "FAILURE"
    done = json.loads((folder / "inference" / "panoptic" / "panoptic.json").read_text())
    assert [image["file_name"] for image in done["images"]] == [first.name, third.name]
    assert {path.name for path in (folder / "inference" / "panoptic").glob("*.png")} == {first.name, third.name}
    metrics = json.loads((folder / "evaluate" / "metrics.json").read_text())
    assert metrics["num_images"] == 2
    assert len(metrics["skipped"]) == 1
