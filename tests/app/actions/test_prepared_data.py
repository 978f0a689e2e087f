"""`tfds://FOLDER` in a spec, and the command that makes the folder."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from oneformer_jax.app.cli.commands import app
from oneformer_jax.app.settings.data import dataset_files
from oneformer_jax.data.datasets.files import open_dataset
from oneformer_jax.data.drawn_shapes import write_drawn_shapes
from oneformer_jax.errors import DataError, SpecError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEFORMER_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_drawn_shapes(folder, {"train": 4, "val": 2}, size=64, seed=2)
    return folder


@pytest.fixture
def prepare(drawn: Path, tmp_path: Path) -> Callable[..., Result]:
    """`prepare(folder, *overrides)` on the command line, of the drawn pictures."""
    (tmp_path / "drawn.yaml").write_text("model: {sem_seg_head: {num_classes: 7}}\n")

    def run(folder: Path, *overrides: str, splits: tuple[str, ...] = ("train", "val")) -> Result:
        keys = [
            f"dataset.{split}.{key}={drawn / split / name}"
            for split in splits
            for key, name in (("images", "images"), ("panoptic", "panoptic"), ("annotations", "annotations.json"))
        ]
        command = ["prepare", "-e", str(tmp_path / "drawn.yaml"), "--output", str(folder), *keys, *overrides]
        return CliRunner().invoke(app, command)

    return run


def test_prepared_splits_open(prepare: Callable[..., Result], spec_of: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "prepared"
    result = prepare(folder)
    assert result.exit_code == 0, result.output
    assert "train: 4 images in 1 shards" in result.output
    address = f"tfds://{folder}"
    assert f'dataset.<split>: {{images: "{address}"}}' in result.output
    spec = spec_of(f"dataset.train.images={address}", f"dataset.val.images={address}")
    assert [len(open_dataset(dataset_files(spec, split))) for split in ("train", "val")] == [4, 2]
    with pytest.raises(SpecError, match=r"dataset\.test\.annotations"):
        open_dataset(dataset_files(spec, "test"))
    spec = spec_of(f"dataset.test.images={address}")
    with pytest.raises(DataError, match=r"(?s)no split test.*it has train, val"):
        open_dataset(dataset_files(spec, "test"))


def test_what_a_spec_says_against_it(prepare: Callable[..., Result], spec_of: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "prepared"
    assert prepare(folder, splits=("train",)).exit_code == 0
    address = f"dataset.train.images=tfds://{folder}"
    for key, value in {"annotations": "a.json", "panoptic": "pngs", "names": "[a]"}.items():
        with pytest.raises(SpecError, match=rf"dataset\.train\.{key}: a prepared data set .* its own annotations"):
            open_dataset(dataset_files(spec_of(address, f"dataset.train.{key}={value}"), "train"))
    with pytest.raises(SpecError, match=r"dataset\.train\.images: prepared data cannot be part of a list"):
        open_dataset(dataset_files(spec_of(f"dataset.train.images=[tfds://{folder},tfds://{folder}]"), "train"))
    with pytest.raises(DataError, match=r"dataset\.train\.images: /nowhere: no such file or folder"):
        open_dataset(dataset_files(spec_of("dataset.train.images=tfds:///nowhere"), "train"))


def test_what_cannot_be_prepared(prepare: Callable[..., Result], drawn: Path, tmp_path: Path) -> None:
    nothing = prepare(tmp_path / "a", splits=())
    assert nothing.exit_code == 1
    assert "dataset.train.annotations" in nothing.output
    wrong = prepare(tmp_path / "a", f"dataset.val.panoptic={drawn / 'train' / 'images'}")
    assert wrong.exit_code == 1
    assert "error:" in wrong.output
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
def test_training_does_not_import_tensorflow_datasets_unasked() -> None:
    script = (
        "import sys, oneformer_jax.app.actions.train.train, oneformer_jax.app.actions.evaluate; print(*sys.modules)"
    )
    command, root = [sys.executable, "-c", script], Path(__file__).resolve().parents[3]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    imported = set(result.stdout.split())
    assert "oneformer_jax.data.datasets.tfds_dataset" in imported
    assert "tensorflow_datasets" not in imported
