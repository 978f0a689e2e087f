"""How inference puts pictures of several sizes into batches."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oneformer_jax.app.actions.inference import _batches
from oneformer_jax.app.run.opened import Skipped
from oneformer_jax.app.run.screen import nothing
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.data.datasets.images import read_image
from oneformer_jax.data.geometry import EvaluationPolicy

POLICY = EvaluationPolicy(min_size=32, max_size=96)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Wide and tall pictures in turn, eight of each, then a square one; every fourth is turned by its orientation."""
    paths = []
    for number in range(17):
        size = (64, 64) if number == 16 else [(96, 64), (64, 96)][number % 2]
        pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), np.uint8)
        exif = Image.Exif()
        if number % 4 == 3:
            pixels, exif[0x0112] = np.ascontiguousarray(np.rot90(pixels)), 6
        paths.append(tmp_path / f"{number:02d}.png")
        Image.fromarray(pixels).save(paths[-1], exif=exif)
    return paths


@pytest.fixture
def skipped(tmp_path: Path) -> Skipped:
    return Skipped(StatusFile(tmp_path / "run", "inference", nothing()))


@pytest.mark.parametrize(("batch_size", "expected"), [(8, [8, 8, 1]), (3, [3, 3, 3, 3, 2, 2, 1]), (1, [1] * 17)])
def test_sizes_in_turn_make_full_batches_of_the_same_pictures(
    pictures: list[Path], skipped: Skipped, batch_size: int, expected: list[int]
) -> None:
    batches = list(_batches(POLICY, pictures, batch_size, skipped))
    assert sorted(map(len, batches), reverse=True) == expected
    assert not skipped.reasons
    for batch in batches:
        assert len({geometry.padded for _, geometry in batch}) == 1
    items = {path: geometry for batch in batches for path, geometry in batch}
    assert sorted(items) == pictures
    for path, geometry in items.items():
        assert geometry == POLICY(read_image(path).shape[:2])


def test_pictures_of_one_size_keep_their_order(pictures: list[Path], skipped: Skipped) -> None:
    wide = pictures[:16:2]
    assert [path for batch in _batches(POLICY, wide, 3, skipped) for path, *_ in batch] == wide
