"""COCO as tools export it: files lie and are called otherwise, and annotations are not all that the format says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_labels import VOID, Labelled, labelled, outline, same_objects, save, written
from importing import imported, opened
from pycocotools import mask as coco_mask

from oneformer_jax.errors import DataError

NAMES = ["ground", "disk", "ring", "straße"]
PICTURES = [labelled(f"größe {n}", 5, seed=n, size=(96, 128)) for n in range(4)]


def polygons(mask: np.ndarray) -> Any:
    return [corners.reshape(-1).round(2).tolist() for corners in outline(mask)]


def runs(mask: np.ndarray) -> Any:
    """Uncompressed, as CVAT writes masks: column after column, 0 first."""
    flat = mask.T.reshape(-1)
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *ends, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def compressed(mask: np.ndarray) -> Any:
    found = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": found["size"], "counts": found["counts"].decode()}


def content(
    pictures: list[Labelled], name_of: Callable[[str], str], segmentation: Callable[[np.ndarray], Any], first: int = 1
) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    images = []
    for number, picture in enumerate(pictures, start=first):
        height, width = picture.classes.shape
        images.append({"id": number, "file_name": name_of(picture.name), "height": height, "width": width})
        for category, mask in picture.objects:
            entry = {"id": len(annotations) + first, "image_id": number, "category_id": category + first}
            annotations.append({**entry, "segmentation": segmentation(mask), "iscrowd": 0})
    categories = [{"id": n, "name": name, "supercategory": ""} for n, name in enumerate(NAMES, start=first)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def cvat(source: Path, pictures: list[Labelled]) -> None:
    for picture in pictures:
        save(source / "images" / "default" / f"{picture.name}.png", picture.image)
    found = content(pictures, lambda name: f"{name}.png", runs)
    for entry in found["annotations"]:
        entry["attributes"] = {"occluded": False}
    write_json(source / "annotations" / "instances_default.json", found)


def label_studio(source: Path, pictures: list[Labelled]) -> None:
    """Which counts from 0 and names files of another machine."""
    for picture in pictures:
        save(source / "images" / f"ab12-{picture.name}.jpg", picture.image)
    found = content(pictures, lambda name: f"images\\ab12-{name}.jpg", polygons, first=0)
    for entry in found["annotations"]:
        entry["ignore"] = entry.pop("iscrowd")
    write_json(source / "result.json", found)


def roboflow(source: Path, pictures: list[Labelled]) -> None:
    """With a class for the group of all others, and files beside their pictures."""
    for split, some in (("train", pictures[:-1]), ("valid", pictures[-1:])):
        found = content(some, lambda name: f"{name}.jpg", polygons)
        for category in found["categories"]:
            category["supercategory"] = "things-abc"
        found["categories"].insert(0, {"id": 0, "name": "things-abc", "supercategory": "none"})
        write_json(source / split / "_annotations.coco.json", found)
        for picture in some:
            save(source / split / f"{picture.name}.jpg", picture.image)


def supervisely(source: Path, pictures: list[Labelled]) -> None:
    """A folder for each data set."""
    for number in range(0, len(pictures), 2):
        folder, some = source / f"ds{number}", pictures[number : number + 2]
        for picture in some:
            save(folder / "images" / f"{picture.name}.png", picture.image)
        found = content(some, lambda name: f"{name}.png", compressed)
        write_json(folder / "annotations" / "instances.json", found)


def coco_2017(source: Path, pictures: list[Labelled]) -> None:
    for split, some in (("train", pictures[:-1]), ("val", pictures[-1:])):
        for picture in some:
            save(source / f"{split}2017" / f"{picture.name}.jpg", picture.image)
        found = content(some, lambda name: f"{name}.jpg", compressed)
        write_json(source / "annotations" / f"instances_{split}2017.json", found)
        write_json(source / "annotations" / f"captions_{split}2017.json", {"images": [], "annotations": [], "info": {}})
        found["categories"] = [{"id": 1, "name": "person", "keypoints": ["nose"]}]
        write_json(source / "annotations" / f"person_keypoints_{split}2017.json", found)


TOOLS = {
    "CVAT": (cvat, 1.0),
    "Label Studio": (label_studio, 0.98),
    "Roboflow": (roboflow, 0.98),
    "Supervisely": (supervisely, 1.0),
    "COCO 2017": (coco_2017, 1.0),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_round_trip(tool: str, tmp_path: Path) -> None:
    write, iou = TOOLS[tool]
    pictures = [labelled("empty", 0, size=(96, 128)), *PICTURES]
    write(tmp_path / "source", pictures)
    result = imported(tmp_path / "source", tmp_path / "data")
    assert result.format == "coco"
    assert not result.counts.left_out
    assert not result.counts.notes
    assert not result.reader.left_out
    found, names = written(tmp_path / "data")
    assert names == NAMES
    assert len(found) == len(pictures)
    for picture in pictures:
        one = next(read for name, read in found.items() if name.endswith(picture.name))
        same_objects(one.objects, picture.objects, iou)
    if tool in ("Roboflow", "COCO 2017"):
        assert [item.split for item in result.reader.items] == ["train"] * 4 + ["val"]


def test_panoptic_files_count_before_instances(tmp_path: Path) -> None:
    source = tmp_path / "source"
    coco_2017(source, PICTURES)
    for split, some in (("train", PICTURES[:-1]), ("val", PICTURES[-1:])):
        found = content(some, lambda name: f"{name}.jpg", compressed)
        for category in found["categories"]:
            category["isthing"] = int(category["id"] > 1)
        annotations = []
        for number, picture in enumerate(some, start=1):
            ids = np.where(picture.classes == VOID, 0, 70_000 + 1000 * picture.classes + picture.object_map)
            colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
            save(source / f"panoptic_{split}2017" / f"{picture.name}.png", colors)
            infos = [
                {"id": int(n), "category_id": int(n - 70_000) // 1000 + 1, "iscrowd": 0} for n in np.unique(ids) if n
            ]
            annotations.append({"image_id": number, "file_name": f"{picture.name}.png", "segments_info": infos})
        write_json(source / "annotations" / f"panoptic_{split}2017.json", found | {"annotations": annotations})
    result = imported(source, tmp_path / "data")
    assert result.reader.regions
    assert "the panoptic ones count" in result.reader.guesses[0]
    found, _ = written(tmp_path / "data")
    for split, some in (("train", PICTURES[:-1]), ("val", PICTURES[-1:])):
        for picture in some:
            np.testing.assert_array_equal(found[f"{split}2017/{picture.name}"].classes, picture.classes)


def test_what_cannot_be_used_is_left_out_and_told(tmp_path: Path) -> None:
    for picture in PICTURES:
        save(tmp_path / "source" / "images" / f"{picture.name}.png", picture.image)
    found = content(PICTURES, lambda name: f"{name}.png", polygons)
    objects = len(PICTURES[0].objects)
    found["annotations"][0]["segmentation"] = []
    found["annotations"][0]["bbox"] = [1, 2, 3, 4]
    found["annotations"][1]["category_id"] = 77
    found["annotations"][2]["segmentation"] = [[0, 0, 9000, 0, 9000, 9000]]
    found["images"].append({"id": 99, "file_name": "gone.png", "height": 5, "width": 5})
    found["images"].append({**found["images"][0], "id": 98})
    write_json(tmp_path / "source" / "labels.json", found)
    result = imported(tmp_path / "source", tmp_path / "data")
    told = [error.what for error in result.reader.left_out]
    assert told[0].endswith("with a box and without a mask")
    assert told[1:] == [
        "there is no picture 'gone.png'",
        f"the picture '{tmp_path}/source/images/größe 0.png' is listed twice",
    ]
    assert [note.what.partition(" of ")[0] for note in result.counts.notes] == [
        "category_id 77",
        "a polygon lies outside the image",
    ]
    assert len(written(tmp_path / "data")[0]["größe 0"].objects) == objects - 3


def test_files_of_other_classes_are_refused(tmp_path: Path) -> None:
    roboflow(tmp_path / "source", PICTURES)
    path = tmp_path / "source" / "valid" / "_annotations.coco.json"
    found = json.loads(path.read_text())
    found["categories"][1]["name"] = "other"
    write_json(path, found)
    with pytest.raises(DataError, match="'other'"):
        opened(tmp_path / "source")
