import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.sources import Source, default_names, open_sources
from oneformer_jax.errors import DataError


@pytest.fixture
def instances(drawn: Path, train: Dataset, tmp_path: Path) -> Path:
    """The training pictures once more, as COCO instances that state what is a thing."""
    content = json.loads((drawn / "train" / "annotations.json").read_text())
    annotations: list[dict[str, Any]] = []
    for i, record in enumerate(train.records):
        (rows,) = train.read_segments(i)
        for row, segment in enumerate(record.segments):
            mask = coco_mask.encode(np.asfortranarray(rows == row, np.uint8))
            entry = {"id": len(annotations) + 1, "image_id": record.image_id, "iscrowd": int(segment.iscrowd)}
            entry["category_id"] = train.categories.items[segment.category].id
            annotations.append(entry | {"segmentation": {**mask, "counts": mask["counts"].decode()}})
    (tmp_path / "instances.json").write_text(json.dumps({**content, "annotations": annotations}))
    return tmp_path / "instances.json"


def panoptic(folder: Path, name: str = "") -> Source:
    return Source(folder / "annotations.json", folder / "images", folder / "panoptic", name)


def test_both_formats_say_the_same(drawn: Path, train: Dataset, instances: Path) -> None:
    other = open_sources([Source(instances, drawn / "train" / "images")])
    assert (len(other), other.planes, other.categories) == (len(train), 1, train.categories)
    for i, (a, b) in enumerate(zip(train.records, other.records, strict=True)):
        masks = []
        for dataset, record in ((train, a), (other, b)):
            planes = dataset.read_segments(i)
            masks.append({(s.category, s.iscrowd, (planes == n).tobytes()) for n, s in enumerate(record.segments)})
        assert masks[0] == masks[1]


def test_several_files_are_one_data_set(drawn: Path, train: Dataset, instances: Path) -> None:
    sources = [
        panoptic(drawn / "val", "a"),
        Source(instances, drawn / "train" / "images", name="b"),
        panoptic(drawn / "train", "c"),
    ]
    dataset = open_sources(sources)
    assert dataset.parts == {"a": range(4), "b": range(4, 14), "c": range(14, 24)}
    assert [len(dataset), len(dataset.records), dataset.planes] == [24, 24, 1]
    for name, source in zip("abc", sources, strict=True):
        alone = open_sources([source])
        for i, j in enumerate(dataset.parts[name]):
            assert dataset.records[j] == alone.records[i]
            np.testing.assert_array_equal(dataset.read_image(j), alone.read_image(i))
            np.testing.assert_array_equal(dataset.read_segments(j), alone.read_segments(i))
    with pytest.raises(DataError, match="num_classes is 6, but there are 7"):
        dataset.check_num_classes(6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda categories: categories.reverse(), r"from 0 on are 'band', .* in these annotations, but 'disk', "),
        (
            lambda categories: categories[2].update(name="tent"),
            r"class 2 is 'tent' in these annotations, but 'triangle' in",
        ),
        (
            lambda categories: categories[2].update(isthing=0),
            r"'triangle' is stuff in these annotations, but a thing in",
        ),
        (
            lambda categories: categories.append({"id": 9, "name": "x", "isthing": 1}),
            "8 classes in these annotations, 7 in .*: class 7 is 'x' in",
        ),
    ],
)
def test_categories_must_agree(
    drawn: Path, broken: Callable, change: Callable[[list[dict[str, Any]]], None], message: str
) -> None:
    folder = broken(lambda content: change(content["categories"]))
    with pytest.raises(DataError, match=message) as caught:
        open_sources([panoptic(drawn / "train"), panoptic(folder)])
    for path in (drawn / "train", folder):
        assert str(path / "annotations.json") in str(caught.value)


def test_panoptic_pngs_belong_to_panoptic_annotations_only(drawn: Path, instances: Path) -> None:
    folder = drawn / "train"
    with pytest.raises(DataError, match="COCO panoptic annotations, but no folder of panoptic PNGs"):
        open_sources([Source(folder / "annotations.json", folder / "images")])
    with pytest.raises(DataError, match="COCO instance annotations, which have no panoptic PNGs"):
        open_sources([Source(instances, folder / "images", folder / "panoptic")])


def test_each_format_has_its_label_map(drawn: Path, instances: Path, tmp_path: Path) -> None:
    label_map = json.loads((drawn / "label_map.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps(label_map[::-1]))
    maps = {"coco_panoptic": drawn / "label_map.json", "*": tmp_path / "other.json"}
    open_sources([panoptic(drawn / "train")], label_maps=maps)
    with pytest.raises(
        DataError, match=r"other.json: the classes from 0 on are 'band', .* in the label map, but 'disk'"
    ):
        open_sources([Source(instances, drawn / "train" / "images")], label_maps=maps)


def test_default_names() -> None:
    assert default_names(["x/train.json", "y/val.json"]) == ("train", "val")
    assert default_names(["x/all.json", "y/all.json"]) == ("x", "y")
    assert default_names(["x/a/all.json", "y/a/all.json"]) == ("dataset_0", "dataset_1")


def test_records_name_their_files(drawn: Path, train: Dataset, tmp_path: Path) -> None:
    folder = drawn / "train"
    assert train.records[0].files == (folder / "images" / "000000.png", folder / "panoptic" / "000000.png")
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "panoptic" / "000001.png").unlink()
    with pytest.raises(DataError, match=r"panoptic PNG 000001.png"):
        open_sources([panoptic(tmp_path / "copy")])
