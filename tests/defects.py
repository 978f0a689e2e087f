"""Data sets with one defect each, and what has to be said about it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Defect = Callable[[Path], None]
"""Breaks the data set in a folder with `images`, `panoptic` and `annotations.json`."""


def in_json(*path: Any, value: Any = ..., remove: bool = False) -> Defect:
    """Sets, or removes, what lies at `path` of the annotations."""

    def change(folder: Path) -> None:
        file = folder / "annotations.json"
        content = part = json.loads(file.read_text())
        for key in path[:-1]:
            part = part[key]
        if remove:
            del part[path[-1]]
        else:
            part[path[-1]] = value
        file.write_text(json.dumps(content))

    return change


def in_bytes(change: Callable[[bytes], bytes], name: str = "annotations.json") -> Defect:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())) and None


def as_picture(name: str, pixels: Any, kind: str = "png", **options: Any) -> Defect:
    return lambda folder: Image.fromarray(np.asarray(pixels, np.uint8)).save(folder / name, format=kind, **options)


def without(name: str) -> Defect:
    return lambda folder: shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def cut_jpeg(folder: Path) -> None:
    path = folder / "images" / "000001.png"
    Image.open(path).save(path, format="jpeg")
    path.write_bytes(path.read_bytes()[:900])


def turned(folder: Path) -> None:
    """The annotations give the size as it is stored, the camera says that it was held upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    as_picture("images/000001.png", np.zeros((48, 64, 3)), exif=exif)(folder)
    as_picture("panoptic/000001.png", np.zeros((48, 64, 3)))(folder)
    in_json("images", 1, "height", value=48)(folder)


def stray_pixel(folder: Path) -> None:
    path = folder / "panoptic" / "000001.png"
    pixels = np.array(Image.open(path))
    pixels[5, 5] = (1, 2, 3)
    Image.fromarray(pixels).save(path)


IMAGE, PNG = r"images/000001\.png: image 1: ", r"panoptic/000001\.png: image 1: "
JSON = r"annotations\.json: "
INFO = ("annotations", 1, "segments_info", 0)

DEFECTS: dict[str, tuple[Defect, str]] = {
    "truncated JPEG": (cut_jpeg, IMAGE + "the image cannot be read: .*truncated"),
    "no image": (in_bytes(lambda _: b"not an image", "images/000001.png"), IMAGE + "the image cannot be read"),
    "empty image": (in_bytes(lambda _: b"", "images/000001.png"), IMAGE + "the image cannot be read"),
    "cut PNG": (in_bytes(lambda data: data[:200], "panoptic/000001.png"), PNG + "the image cannot be read"),
    "image of another size": (
        as_picture("images/000001.png", np.zeros((32, 64, 3))),
        IMAGE + r"the size is 32x64 \(height x width\), the annotations say 64x64",
    ),
    "PNG of another size": (as_picture("panoptic/000001.png", np.zeros((64, 32, 3))), PNG + "the size is 64x32"),
    "EXIF rotation": (turned, IMAGE + "the size is 64x48 .* say 48x64\n  -> images are rotated upright by their EXIF"),
    "grey PNG": (as_picture("panoptic/000001.png", np.zeros((64, 64))), PNG + ".* of mode L"),
    "PNG id without segment": (stray_pixel, PNG + f"the panoptic PNG holds segment id {1 + 2 * 256 + 3 * 65536}"),
    "missing image": (without("images/000001.png"), "the image 000001.png, but there is no such file"),
    "missing PNG": (without("panoptic/000001.png"), "the panoptic PNG 000001.png, but there is no such file"),
    "missing folder": (without("images"), "images: the image folder does not exist"),
    "missing JSON": (without("annotations.json"), JSON + "the file does not exist"),
    "JSON cut in half": (in_bytes(lambda data: data[: len(data) // 2]), JSON + "not valid JSON: .* line 1 column"),
    "empty JSON": (in_bytes(lambda _: b""), JSON + "not valid JSON"),
    "JSON list": (in_bytes(lambda data: b"[" + data + b"]"), JSON + "there is no list 'images'"),
    "JSON in another encoding": (in_bytes(lambda data: b'"\xe9"' + data), JSON + "not valid JSON: .*utf-8"),
    "deep JSON": (in_bytes(lambda _: b"[" * 100_000), JSON + "not usable JSON: nested too deeply"),
    "NaN in bbox": (in_json(*INFO, "bbox", value=[0, float("nan"), 1, 1]), JSON + "not valid JSON: NaN is not a JSON"),
    "endless number": (
        in_bytes(lambda data: data.replace(b'"height": 64', b'"height": ' + b"9" * 5000, 1)),
        JSON + "not valid JSON: Exceeds the limit",
    ),
    "empty images": (in_json("images", value=[]), JSON + "the annotation of image 0 has no entry in 'images'"),
    "empty annotations": (in_json("annotations", value=[]), JSON + "the data set is empty"),
    "empty categories": (in_json("categories", value=[]), JSON + "the list of categories is empty"),
    "no categories": (in_json("categories", remove=True), JSON + "there is no list 'categories'"),
    "image twice": (in_json("images", 1, "id", value=0), JSON + "image id 0 appears twice"),
    "image annotated twice": (in_json("annotations", 1, "image_id", value=0), "annotated image id 0 appears twice"),
    "category twice": (in_json("categories", 1, "id", value=1), JSON + "category id 1 appears twice"),
    "unknown image": (
        in_json("annotations", 1, "image_id", value=77),
        JSON + "the annotation of image 77 has no entry",
    ),
    "unknown category": (in_json(*INFO, "category_id", value=99), JSON + "image 1: category_id 99 of segment"),
    "category id as a word": (in_json("categories", 1, "id", value="two"), JSON + "category 1: id must be an integer"),
    "segment's category as a word": (
        in_json(*INFO, "category_id", value="ring"),
        JSON + "image 1: category_id ring of segment",
    ),
    "segment id as a word": (in_json(*INFO, "id", value="it"), JSON + "image 1: segment ids must be integers"),
    "segment id beyond 24 bits": (in_json(*INFO, "id", value=1 << 24), JSON + "image 1: segment ids must be integers"),
    "image id as list": (in_json("images", 1, "id", value=[1]), JSON + "the id of an image must be"),
    "negative size": (in_json("images", 1, "height", value=-64), "image 1: height must be a positive integer, not -64"),
    "half a pixel": (in_json("images", 1, "width", value=64.5), "image 1: width must be a positive integer, not 64.5"),
    "huge size": (in_json("images", 1, "width", value=10**30), "image 1: an image of 64 x 10* pixels is larger"),
    "no name": (in_json("categories", 2, "name", value=None), "category 2: name must be a text, not None"),
    "file name as number": (in_json("images", 1, "file_name", value=7), JSON + "file_name must be a string"),
    "no isthing": (in_json("categories", 2, "isthing", remove=True), "category 2: the key 'isthing' is missing"),
    "iscrowd 2": (in_json(*INFO, "iscrowd", value=2), "image 1: iscrowd must be 0 or 1, not 2"),
    "segments as text": (in_json("annotations", 1, "segments_info", value="none"), "segments_info must be a list"),
}
