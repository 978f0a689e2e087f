"""Real labels in other layouts come back: bit for bit where a layout loses nothing, else with an IoU of 0.98."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawn_labels import VOID, Labelled, decoded, is_whole, same_objects, written
from importing import imported
from layouts import LAYOUTS
from PIL import Image

PICTURES = 6


@pytest.fixture(scope="module")
def nuclei(shared: Path) -> list[Labelled]:
    folder = shared / "data" / "nuclei" / "val"
    if not folder.is_dir():
        pytest.skip(f"no pictures of nuclei at {folder}")
    content = json.loads((folder / "annotations.json").read_text())
    pictures = []
    for image in content["images"][:PICTURES]:
        size = image["height"], image["width"]
        entries = [entry for entry in content["annotations"] if entry["image_id"] == image["id"]]
        objects = [(1, decoded(entry["segmentation"], *size)) for entry in entries]
        classes = np.zeros(size, np.int32)
        for _, mask in objects:
            classes[mask] = 1
        pixels = np.asarray(Image.open(folder / "images" / image["file_name"]).convert("RGB"))
        pictures.append(Labelled(Path(image["file_name"]).stem, pixels, classes, objects))
    return pictures


@pytest.fixture(scope="module")
def camvid(shared: Path) -> tuple[list[Labelled], list[str]]:
    folder = shared / "data" / "camvid" / "val"
    if not folder.is_dir():
        pytest.skip(f"no pictures of streets at {folder}")
    content = json.loads((folder / "annotations.json").read_text())
    index = {category["id"]: number for number, category in enumerate(content["categories"])}
    things = {category["id"] for category in content["categories"] if category["isthing"]}
    images = {image["id"]: image for image in content["images"]}
    pictures = []
    for entry in content["annotations"][:: len(images) // PICTURES]:
        image = images[entry["image_id"]]
        ids = np.asarray(Image.open(folder / "panoptic" / entry["file_name"])).astype(int) @ (1, 256, 65536)
        classes, objects = np.full(ids.shape, VOID, np.int32), []
        for info in entry["segments_info"]:
            mask = ids == info["id"]
            classes[mask] = index[info["category_id"]]
            if info["category_id"] in things and not info["iscrowd"]:
                objects.append((index[info["category_id"]], mask))
        pixels = np.asarray(Image.open(folder / "images" / image["file_name"]).convert("RGB"))
        pictures.append(Labelled(Path(image["file_name"]).stem, pixels, classes, objects))
    return pictures, [category["name"] for category in content["categories"]]


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_nuclei(name: str, nuclei: list[Labelled], tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    layout.write(tmp_path / "source", nuclei, ["background", "nucleus"])
    imported(tmp_path / "source", tmp_path / "data", format=layout.format)
    found, names = written(tmp_path / "data")
    for picture in nuclei:
        read = next(read for key, read in found.items() if Path(key).name == picture.name)
        same_objects(read.objects, [(len(names) - 1, mask) for _, mask in picture.objects], layout.iou)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, layout in LAYOUTS.items() if not layout.one_class])
def test_camvid(name: str, camvid: tuple[list[Labelled], list[str]], tmp_path: Path) -> None:
    layout, (pictures, names) = LAYOUTS[name], camvid
    if layout.iou < 1:  # what an outline can bound
        pictures = [replace(one, objects=[(c, mask) for c, mask in one.objects if is_whole(mask)]) for one in pictures]
    layout.write(tmp_path / "source", pictures, names)
    imported(tmp_path / "source", tmp_path / "data", format=layout.format)
    found, read_names = written(tmp_path / "data")
    assert read_names == names
    for picture in pictures:
        same_objects(found[picture.name].objects, picture.objects, layout.iou)
        if layout.stuff:
            np.testing.assert_array_equal(found[picture.name].classes, picture.classes)
