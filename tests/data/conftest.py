"""A few drawn pictures on disk, and copies of them to break."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.data.drawn_shapes import write_drawn_shapes
from oneformer_jax.data.storage import addresses


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_drawn_shapes(folder, {"train": 10, "val": 4}, size=64, seed=3)
    return folder


@pytest.fixture(scope="session")
def open_split() -> Callable[..., Dataset]:
    def opened(folder: Path, **options: bool) -> Dataset:
        return open_sources([Source(folder / "annotations.json", folder / "images", folder / "panoptic")], **options)

    return opened


@pytest.fixture(scope="session")
def train(drawn: Path, open_split: Callable[..., Dataset]) -> Dataset:
    return open_split(drawn / "train")


@pytest.fixture
def broken(drawn: Path, tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """A copy of the `val` split whose annotations a function may spoil."""

    def spoil(change: Callable[[dict[str, Any]], None]) -> Path:
        folder = tmp_path / "split"
        shutil.copytree(drawn / "val", folder)
        content = json.loads((folder / "annotations.json").read_text())
        change(content)
        (folder / "annotations.json").write_text(json.dumps(content))
        return folder

    return spoil


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test alone; downloads that break off are continued at once."""
    monkeypatch.setenv("ONEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(addresses, "PAUSE", 0.0)
    return tmp_path / "cache" / "data"
