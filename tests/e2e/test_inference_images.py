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
