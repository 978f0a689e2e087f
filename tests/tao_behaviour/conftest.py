"""A few drawn pictures."""

from collections.abc import Callable
from pathlib import Path

import pytest

from oneformer_jax.app.spec import Spec
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.data.drawn_shapes import write_drawn_shapes

SpecOf = Callable[..., Spec]


@pytest.fixture(scope="session")
def five_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("five")
    write_drawn_shapes(folder, {"train": 5}, size=64, seed=3)
    return folder / "train"


@pytest.fixture(scope="session")
def dataset(five_pictures: Path) -> Dataset:
    folder = five_pictures
    return open_sources([Source(folder / "annotations.json", folder / "images", folder / "panoptic")])
