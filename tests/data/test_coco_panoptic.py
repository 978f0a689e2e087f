import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.images import read_panoptic
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.errors import DataError

Open = Callable[..., Dataset]
Spoil = Callable[[Callable[[dict[str, Any]], None]], Path]


@pytest.mark.parametrize("folder", ["coco_panoptic_sample", "camvid/val"])
def test_real_files_have_the_areas_that_their_annotations_state(open_split: Open, shared: Path, folder: str) -> None:
    root = shared / "data" / folder
    dataset = open_split(root)
    annotations = json.loads((root / "annotations.json").read_text())["annotations"]
    for i in range(min(len(dataset), 10)):
        record = dataset.records[i]
        ids, planes = read_panoptic(record.panoptic_path), dataset.read_segments(i)
        assert dataset.read_image(i).shape == (*ids.shape, 3) == (record.height, record.width, 3)
        for row, (segment, info) in enumerate(zip(record.segments, annotations[i]["segments_info"], strict=True)):
            assert dataset.categories.items[segment.category].id == info["category_id"]
            assert (ids == segment.id).sum() == (planes[0] == row).sum() == info["area"]


@pytest.mark.tao(25)
def test_a_folder_one_level_too_high_is_descended(open_split: Open, drawn: Path, tmp_path: Path) -> None:
    for name in ("images", "panoptic"):
        shutil.copytree(drawn / "val" / name, tmp_path / name / "wrapped")
    shutil.copy(drawn / "val" / "annotations.json", tmp_path)
    assert open_split(tmp_path).records[0].image_path.parent.name == "wrapped"


def test_img_path_replaces_folder_and_name(broken: Spoil, drawn: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image["img_path"] = str(drawn / "val" / "images" / image["file_name"])

    folder = broken(change)
    dataset = open_sources([Source(folder / "annotations.json", None, folder / "panoptic")])
    assert dataset.records[1].image_path == drawn / "val" / "images" / "000001.png"


def test_sizes_are_read_from_the_image_where_the_annotations_have_none(open_split: Open, broken: Spoil) -> None:
    folder = broken(lambda content: [content["images"][0].pop(key) for key in ("height", "width")] and None)
    assert (open_split(folder).records[0].height, open_split(folder).records[0].width) == (64, 64)


def _set(*path: str | int, value: object) -> Callable[[dict[str, Any]], None]:
    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


def _remove(*path: str | int) -> Callable[[dict[str, Any]], None]:
    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


SEGMENT = ("annotations", 1, "segments_info", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("annotations", value=[]), "data set is empty"),
        (_remove("categories"), "there is no list 'categories'"),
        (_remove("categories", 2, "isthing"), "'isthing' is missing"),
        (_remove(*SEGMENT, "category_id"), "'category_id' is missing"),
        (_set(*SEGMENT, "category_id", value=99), "category_id 99 .* not among the categories"),
        (_set(*SEGMENT, "id", value=0), "segment ids must be integers from 1"),
        (_set(*SEGMENT, "id", value=1 << 24), "segment ids must be integers from 1"),
        (_set("annotations", 1, "image_id", value=0), "annotated image id 0 appears twice"),
        (_set("annotations", 1, "image_id", value=77), "image 77 has no entry in 'images'"),
        (_set("images", 1, "id", value=0), "image id 0 appears twice"),
        (_set("images", 1, "height", value=-1), "height must be a positive integer, not -1"),
        (_set("images", 1, "file_name", value="gone.png"), "the image gone.png, but"),
        (_set("annotations", 1, "file_name", value="gone.png"), "the panoptic PNG gone.png, but"),
        (_remove("annotations", 1, "file_name"), "'file_name' is missing"),
        (_set("categories", 1, "id", value=1), "category id 1 appears twice"),
    ],
)
def test_contradictions_are_found_before_work_starts(
    open_split: Open, broken: Spoil, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    folder = broken(change)
    with pytest.raises(DataError, match=message):
        open_split(folder)


def test_problems_of_several_kinds_are_one_message(open_split: Open, broken: Spoil) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content["annotations"][0]["image_id"] = 77
        content["annotations"][1]["file_name"] = "gone.png"

    with pytest.raises(DataError, match=r"2 problems\n.*image 77 has no entry(.|\n)*panoptic PNG gone.png"):
        open_split(broken(spoil))


def test_duplicate_segments_and_missing_files(open_split: Open, drawn: Path, broken: Spoil, tmp_path: Path) -> None:
    def double(content: dict[str, Any]) -> None:
        infos = content["annotations"][0]["segments_info"]
        infos.append(infos[0])

    folder = broken(double)
    with pytest.raises(DataError, match=r"segment id .* appears twice"):
        open_split(folder)
    with pytest.raises(DataError, match="does not exist"):
        open_split(tmp_path / "nowhere")
    for name in ("000001.png", "000003.png"):
        (folder / "images" / name).unlink()
    with pytest.raises(DataError, match=r"2 problems\n.*000001.png.*\n.*000003.png"):
        open_split(folder)
    shutil.rmtree(folder / "panoptic")
    with pytest.raises(DataError, match="folder does not exist"):
        open_sources([Source(folder / "annotations.json", drawn / "val" / "images", folder / "panoptic")])


@pytest.mark.tao(22)
def test_too_few_classes(train: Dataset) -> None:
    train.check_num_classes(7)
    train.check_num_classes(10)
    with pytest.raises(DataError, match="num_classes is 6, but there are 7"):
        train.check_num_classes(6)


@pytest.mark.tao(23)
def test_raw_ids_as_class_indices(open_split: Open, broken: Spoil) -> None:
    def from_zero(content: dict[str, Any]) -> None:
        for entry in content["categories"]:
            entry["id"] -= 1
        for annotation in content["annotations"]:
            for info in annotation["segments_info"]:
                info["category_id"] -= 1

    folder = broken(from_zero)
    with_positions, with_ids = open_split(folder), open_split(folder, contiguous_id=False)
    assert with_positions.records == with_ids.records


@pytest.mark.tao(23)
def test_one_based_raw_ids_are_refused(open_split: Open, drawn: Path) -> None:
    with pytest.raises(DataError, match=r"must be 0..6, but they run from 1 to 7"):
        open_split(drawn / "train", contiguous_id=False)


def test_pixels_of_another_size_are_named_when_read(open_split: Open, broken: Spoil) -> None:
    folder = broken(lambda content: None)
    Image.fromarray(np.zeros((32, 64, 3), np.uint8)).save(folder / "images" / "000002.png")
    (folder / "panoptic" / "000003.png").write_bytes(b"rubbish")
    dataset = open_split(folder)
    with pytest.raises(DataError, match=r"000002.png: the size is 32x64"):
        dataset.read_image(2)
    with pytest.raises(DataError, match=r"panoptic/000003.png: the image cannot be read"):
        dataset.read_segments(3)
