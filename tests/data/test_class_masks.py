"""Images with masks of classes and no annotations: the same batches as of what `import` makes of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oneformer_jax.data.augmentation import AugmentationSettings
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.images import EncodedImage, read_panoptic
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.data.importers.formats import named
from oneformer_jax.data.importers.reader import Options
from oneformer_jax.data.importers.written import write_split
from oneformer_jax.data.pipeline import PipelineSettings, train_batches
from oneformer_jax.errors import DataError

LABELS = [
    {"id": 0, "name": "ground", "isthing": 0, "color": [1, 2, 3]},
    {"id": 7, "name": "disk", "isthing": 1, "color": [4, 5, 6]},
    {"id": 300, "name": "ring", "isthing": 0, "color": [7, 8, 9]},
]
SIZE = (40, 56)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images, one of them in a folder of its own; the last mask shows one class alone."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(["a", "b", "größe/c", "d"]):
        mask = np.zeros(SIZE, np.uint16)
        if number < 3:
            mask[5:20, number : 20 + number], mask[30:, 10:], mask[0] = 7, 300, 255
        for kind, suffix, pixels in (
            ("images", "jpg", rng.integers(0, 255, (*SIZE, 3), np.uint8)),
            ("masks", "png", mask),
        ):
            path = tmp_path / kind / f"{name}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    (tmp_path / "label_map.json").write_text(json.dumps(LABELS))
    return tmp_path


def opened(folder: Path) -> Dataset:
    source = Source(None, folder / "images", folder / "masks")
    return open_sources([source], label_maps={"*": folder / "label_map.json"})


def test_what_is_read(folder: Path) -> None:
    dataset = opened(folder)
    assert [record.image_id for record in dataset.records] == ["a", "b", "d", "größe/c"]
    assert [[segment.category for segment in record.segments] for record in dataset.records] == [
        [0, 1, 2],
        [0, 1, 2],
        [0],
        [0, 1, 2],
    ]
    assert not dataset.categories.is_thing.any(), "no mask tells objects apart"
    assert "masks of classes, without annotations: 4 images" in dataset.warnings[0]
    mask = np.asarray(Image.open(folder / "masks" / "a.png"))
    rows = dataset.read_segments(0)[0]
    for row, value in enumerate((0, 7, 300)):
        np.testing.assert_array_equal(rows == row, mask == value)
    np.testing.assert_array_equal(rows == -1, mask == 255)


def test_batches_are_those_of_imported_data(folder: Path, tmp_path: Path) -> None:
    options = Options(classes=folder / "label_map.json")
    reader = named("masks").open(folder, options, lambda done: None)
    write_split(tmp_path / "imported", reader, sorted(reader.items))
    place = tmp_path / "imported"
    imported = open_sources([Source(place / "annotations.json", place / "images", place / "panoptic")])
    settings = PipelineSettings(
        batch_size=4,
        num_queries=12,
        n_ctx=2,
        task_prob={"semantic": 1.0, "panoptic": 1.0},
        augmentation=AugmentationSettings(crop=(32, 32)),
        num_workers=0,
    )
    first, second = (next(train_batches(dataset, settings, first_sample=3)) for dataset in (opened(folder), imported))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_prepared_data_gets_a_panoptic_png(folder: Path) -> None:
    dataset = opened(folder)
    found = dataset.encoded(0)
    ids = read_panoptic(EncodedImage(found.panoptic, "a"))
    rows = dataset.read_segments(0)[0]
    listed = np.array([*(segment.id for segment in dataset.records[0].segments), 0])
    np.testing.assert_array_equal(ids, listed[rows])


def test_what_contradicts_itself_is_refused(folder: Path) -> None:
    image = Image.open(folder / "masks" / "a.png")
    Image.fromarray(np.full(SIZE, 9, np.uint8)).save(folder / "masks" / "a.png")
    with pytest.raises(DataError, match=r"a\.png: the mask holds 9, which is the id of no class in the label map"):
        opened(folder)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / "masks" / "a.png")
    with pytest.raises(DataError, match=r"a\.png: the mask holds colours.*\n.*annotations"):
        opened(folder)
    image.crop((0, 0, 5, 5)).save(folder / "masks" / "a.png")
    with pytest.raises(DataError, match=r"a\.png: the size is 5x5"):
        opened(folder)
    (folder / "images" / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"a\.png: the mask has no image of its name"):
        opened(folder)


def test_without_a_label_map_there_are_no_annotations(folder: Path) -> None:
    with pytest.raises(DataError, match="there are no annotations"):
        open_sources([Source(None, folder / "images", folder / "masks")])
