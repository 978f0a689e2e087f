"""The other side of the pipeline benchmark makes what it should, and the command measures both."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import pipeline
from benchmarks.dense_pipeline import IGNORED, MEAN, STD, DensePipeline, Recipe
from benchmarks.mosaics import write_mosaics
from oneformer_jax.data.datasets.sources import Source, open_sources


@pytest.fixture(scope="module")
def mosaics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mosaics")
    write_mosaics(folder, 4, (48, 64), lambda i: 3 + 2 * i)
    return folder


def test_mosaics_are_panoptic_data_of_known_amounts(mosaics: Path) -> None:
    dataset = open_sources([Source(mosaics / "annotations.json", mosaics / "images", mosaics / "panoptic")])
    assert [len(record.segments) for record in dataset.records] == [3, 5, 7, 9]
    for i in range(4):
        assert dataset.read_image(i).shape == (48, 64, 3)
        assert set(np.unique(dataset.read_segments(i))) == set(range(3 + 2 * i)), "every segment is seen"


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(rotation=1.0, blur=1.0, erasing=1.0)])
def test_dense_samples_are_whole_and_consistent(mosaics: Path, recipe: Recipe) -> None:
    make = DensePipeline(mosaics, 64, recipe)
    classes = {i: {info["category_id"] - 1 for info in make.annotations[i]["segments_info"]} for i in range(4)}
    for sample in range(12):
        image, masks, of_mask, semantic = make(sample, sample % 4)
        assert image.shape == (3, 64, 64)
        assert image.dtype == np.float32
        assert masks.dtype == bool
        assert masks.shape == (len(of_mask), 64, 64)
        assert (masks.sum(0) <= 1).all()
        assert set(of_mask.tolist()) <= classes[sample % 4]
        for mask, category in zip(masks, of_mask, strict=True):
            assert (semantic[mask] == category).all()
        assert (semantic[~masks.any(0)] == IGNORED).all()


def test_a_dense_sample_undone(mosaics: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without random changes, the picture and its ids come out as they are in the files."""
    make = DensePipeline(mosaics, 64, Recipe())
    monkeypatch.setattr("benchmarks.dense_pipeline._recoloured", lambda image, rng: image)
    monkeypatch.setattr(DensePipeline, "_resized", lambda self, image, ids, rng: (image, ids))
    picture = np.asarray(Image.open(mosaics / "images" / "000002.jpg"))
    seen = set()
    for sample in range(20):
        image, masks, _, _ = make(sample, 2)
        pixels = (image.transpose(1, 2, 0) * STD + MEAN).round().astype(int)
        flipped = bool((pixels[:48] == picture[:, ::-1]).all())
        assert flipped or (pixels[:48] == picture).all()
        assert (pixels[48:] == 0).all()
        assert not masks[:, 48:].any()
        seen.add(flipped)
    assert seen == {False, True}


@pytest.mark.slow
def test_the_command_measures_both_sides(mosaics: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--data", str(mosaics), "--crop", "64", "--rounds", "2", "--samples", "3", "--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["pipeline", *options])
    pipeline.main()
    result = json.loads((tmp_path / f"pipeline-{mosaics.name}-tao-64-cpu.json").read_text())
    assert [len(result[side]["times_ms"]) for side in ("this_project", "reference")] == [2, 2]
    assert min(result[side]["peak_mib"] for side in ("this_project", "reference")) > 30
    assert result["samples"] == 6
