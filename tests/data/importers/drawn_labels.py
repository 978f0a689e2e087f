"""Pictures with labels that are known, and what was imported read back from its files, both without the importers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

VOID = -1


@dataclass
class Labelled:
    """A picture: class indices (VOID: none), and its objects from back to front: class index and mask."""

    name: str
    image: np.ndarray
    classes: np.ndarray
    objects: list[tuple[int, np.ndarray]] = field(default_factory=list)

    @property
    def object_map(self) -> np.ndarray:
        """The number of the object in front of each pixel from 1 on, 0 for none."""
        numbers = np.zeros(self.classes.shape, np.int32)
        for number, (_, mask) in enumerate(self.objects, start=1):
            numbers[mask] = number
        return numbers


def labelled(name: str, count: int, *, seed: int = 0, size: tuple[int, int] = (48, 64), stuff: int = 1) -> Labelled:
    """Ellipses of the classes from `stuff` on over stripes of the classes below, with a void margin at the top."""
    rng = np.random.default_rng((seed, *name.encode()))
    height, width = size
    classes = (np.arange(width) * stuff // width)[None].repeat(height, 0).astype(np.int32)
    classes[:2] = VOID
    rows, columns = np.mgrid[:height, :width]
    objects = []
    for _ in range(count):
        y, x, a, b = rng.uniform((6, 6, height / 12, height / 12), (height - 6, width - 6, height / 5, height / 5))
        mask = ((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 <= 1
        objects.append((int(rng.integers(stuff, stuff + 3)), mask))
        classes[mask] = objects[-1][0]
    front = Labelled(name, np.zeros(0), classes, objects).object_map
    seen = [(category, front == number) for number, (category, _) in enumerate(objects, start=1)]
    objects = [(category, mask) for category, mask in seen if mask.sum() > 20]
    shown = Labelled(name, rng.integers(0, 255, (height, width, 3), np.uint8), classes, objects)
    for number, (_, mask) in enumerate(seen, start=1):
        if mask.sum() <= 20:
            shown.classes[front == number] = 0
    return shown


def save(path: Path, pixels: np.ndarray, palette: Sequence[int] | None = None) -> None:
    """A file of pixels, with its folder; with a palette it is one of positions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette is not None:
        image = Image.frombytes("P", image.size, pixels.astype(np.uint8).tobytes())
        image.putpalette(list(palette))
    image.save(path)


@dataclass
class Read:
    """A picture as an import wrote it."""

    classes: np.ndarray
    objects: list[tuple[int, np.ndarray]]
    image: Path


def written(folder: Path) -> tuple[dict[str, Read], list[str]]:
    """What a split holds, by the name of the picture without its suffix, and the names of the classes."""
    content = json.loads((folder / "annotations.json").read_text())
    index = {category["id"]: number for number, category in enumerate(content["categories"])}
    things = {category["id"] for category in content["categories"] if category["isthing"]}
    images = {image["id"]: image for image in content["images"]}
    found: dict[str, Read] = {}
    for image in images.values():
        empty = np.full((image["height"], image["width"]), VOID, np.int32)
        found[str(Path(image["file_name"]).with_suffix(""))] = Read(empty, [], folder / "images" / image["file_name"])
    for entry in content["annotations"]:
        image = images[entry["image_id"]]
        read = found[str(Path(image["file_name"]).with_suffix(""))]
        if "segments_info" in entry:
            colors = np.asarray(Image.open(folder / "panoptic" / entry["file_name"]).convert("RGB")).astype(np.int64)
            ids = colors @ (1, 256, 65536)
            assert set(np.unique(ids)) - {0} == {info["id"] for info in entry["segments_info"]}
            for info in entry["segments_info"]:
                mask = ids == info["id"]
                assert mask.sum() == info["area"]
                rows, columns = np.nonzero(mask)
                box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
                assert info["bbox"] == box
                read.classes[mask] = index[info["category_id"]]
                if info["category_id"] in things and not info["iscrowd"]:
                    read.objects.append((index[info["category_id"]], mask))
            continue
        mask = decoded(entry["segmentation"], image["height"], image["width"])
        read.classes[mask] = index[entry["category_id"]]
        if not entry["iscrowd"]:
            read.objects.append((index[entry["category_id"]], mask))
    return found, [category["name"] for category in content["categories"]]


def decoded(segmentation: object, height: int, width: int) -> np.ndarray:
    """A mask of COCO's notations by pycocotools."""
    if isinstance(segmentation, list):
        parts = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):  # type: ignore[index]
        parts = coco_mask.frPyObjects(segmentation, height, width)
    else:
        parts = segmentation
    return coco_mask.decode(parts).astype(bool)


def same_objects(found: list[tuple[int, np.ndarray]], wanted: list[tuple[int, np.ndarray]], least: float = 1.0) -> None:
    """Each object that is wanted is there once, with an IoU of `least` or more, and no other is."""
    assert sorted(category for category, _ in found) == sorted(category for category, _ in wanted)
    left = list(found)
    for category, mask in wanted:
        scores = [(mask & other).sum() / (mask | other).sum() if own == category else 0.0 for own, other in left]
        best = int(np.argmax(scores))
        assert scores[best] >= least, scores[best]
        left.pop(best)


def is_whole(mask: np.ndarray) -> bool:
    """Whether one outline bounds it: it has one part and no hole."""
    contours, _ = cv2.findContours(np.pad(mask, 1).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return len(contours) == 1


def outline(mask: np.ndarray) -> list[np.ndarray]:
    """Outlines of a mask without its holes: corners (x, y), a sixteenth of a pixel inside the edges of its pixels."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    large = cv2.resize(inner, None, fx=8, fy=8, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [(contour[:, 0] + 0.5) / 8 + (columns[0], rows[0]) for contour in contours if len(contour) > 2]
