"""Writers of layouts, independent of their readers: from pictures whose objects are known to files."""

import base64
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from drawn_labels import VOID, Labelled, outline, save
from PIL import Image

Pictures = Sequence[Labelled]


@dataclass(frozen=True)
class Layout:
    """`write(source, pictures, names)` writes the class `number` of an object as `names[number]`. `iou`: what a mask
    keeps; `one_class`: objects have no class; `stuff`: what no object covers has a class, too."""

    format: str
    write: Callable[[Path, Pictures, list[str]], None]
    labels_of: Callable[[Path, str], Path]  # the file of labels of a picture
    image_of: Callable[[Path, str], Path]
    iou: float = 1.0
    one_class: bool = False
    stuff: bool = False


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def voc(source: Path, pictures: Pictures, names: list[str], *, bits: type = np.uint8) -> None:
    write_text(source / "classes.txt", "\n".join(names))
    grey = [channel for value in range(256) for channel in (value, value // 2, 255 - value)]
    for picture in pictures:
        save(voc_image(source, picture.name), picture.image)
        classes = np.where(picture.classes == VOID, 255, picture.classes).astype(np.uint8)
        save(source / "SegmentationClass" / f"{picture.name}.png", classes, grey)
        objects = picture.object_map
        if bits is np.uint8:
            save(voc_labels(source, picture.name), objects.astype(np.uint8), grey)
        else:
            save(voc_labels(source, picture.name), objects.astype(np.uint16))


def voc_labels(source: Path, name: str) -> Path:
    return source / "SegmentationObject" / f"{name}.png"


def voc_image(source: Path, name: str) -> Path:
    return source / "JPEGImages" / f"{name}.jpg"


def camvid(source: Path, pictures: Pictures, names: list[str]) -> None:
    """With numbers of 16 bits in files with endings."""
    write_text(source / "classes.txt", "\n".join(names))
    for picture in pictures:
        save(camvid_image(source, picture.name), picture.image)
        void = 255 if len(names) < 255 else 65535
        classes = np.where(picture.classes == VOID, void, picture.classes).astype(np.uint16)
        save(source / "labels" / f"{picture.name}_L.png", classes)
        save(camvid_labels(source, picture.name), (picture.object_map * 7).astype(np.uint16))


def camvid_labels(source: Path, name: str) -> Path:
    return source / "instances" / f"{name}_instanceIds.png"


def camvid_image(source: Path, name: str) -> Path:
    return source / "images" / f"{name}.png"


def nuclei(source: Path, pictures: Pictures, names: list[str]) -> None:
    write_text(source / "classes.txt", "nucleus")
    for picture in pictures:
        save(nuclei_image(source, picture.name), picture.image)
        (nuclei_image(source, picture.name).parents[1] / "masks").mkdir()
        for number, (_, mask) in enumerate(picture.objects):
            save(
                nuclei_image(source, picture.name).parents[1] / "masks" / f"{number}.png", (255 * mask).astype(np.uint8)
            )


def nuclei_image(source: Path, name: str) -> Path:
    return source / name / "images" / f"{Path(name).name}.png"


def nuclei_labels(source: Path, name: str) -> Path:
    return source / name / "masks"


def folders_of_masks(source: Path, pictures: Pictures, names: list[str]) -> None:
    for picture in pictures:
        save(camvid_image(source, picture.name), picture.image)
        (source / "masks" / picture.name).mkdir(parents=True)
        for number, (_, mask) in enumerate(picture.objects):
            save(source / "masks" / picture.name / f"{number}.png", mask)


def yolo(source: Path, pictures: Pictures, names: list[str]) -> None:
    content = {"path": ".", "train": "images/train", "val": "images/val", "names": dict(enumerate(names))}
    (source / "images" / "val").mkdir(parents=True)
    (source / "data.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    for picture in pictures:
        save(yolo_image(source, picture.name), picture.image)
        height, width = picture.classes.shape
        lines = []
        for category, mask in picture.objects:
            corners = max(outline(mask), key=len) / (width, height)
            lines.append(" ".join([str(category), *(f"{value:.6f}" for value in corners.reshape(-1))]))
        path = yolo_labels(source, picture.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")


def yolo_image(source: Path, name: str) -> Path:
    return source / "images" / "train" / f"{name}.jpg"


def yolo_labels(source: Path, name: str) -> Path:
    return source / "labels" / "train" / f"{name}.txt"


def labelme(source: Path, pictures: Pictures, names: list[str], *, masks: bool = False) -> None:
    write_text(source / "labels.txt", "\n".join(["__ignore__", *names]))
    for picture in pictures:
        save(labelme_image(source, picture.name), picture.image)
        shapes = []
        for number, (category, mask) in enumerate(picture.objects):
            shape = {"label": names[category], "group_id": number, "flags": {}, "description": ""}
            if masks:
                y, x = np.nonzero(mask)
                inner = io.BytesIO()
                Image.fromarray(mask[y.min() : y.max() + 1, x.min() : x.max() + 1]).save(inner, "PNG")
                box = [[int(x.min()), int(y.min())], [int(x.max()), int(y.max())]]
                text = base64.b64encode(inner.getvalue()).decode()
                shapes.append(shape | {"shape_type": "mask", "points": box, "mask": text})
            else:
                for corners in outline(mask):
                    shapes.append(shape | {"shape_type": "polygon", "points": corners.tolist()})
        height, width = picture.classes.shape
        sizes = {"imageHeight": height, "imageWidth": width}
        image = f"{Path(picture.name).name}.jpg"
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None, **sizes}
        labelme_labels(source, picture.name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def labelme_image(source: Path, name: str) -> Path:
    return source / f"{name}.jpg"


def labelme_labels(source: Path, name: str) -> Path:
    return source / f"{name}.json"


def labelme_masks(source: Path, pictures: Pictures, names: list[str]) -> None:
    labelme(source, pictures, names, masks=True)


LAYOUTS = {
    "VOC": Layout("object-masks", voc, voc_labels, voc_image, stuff=True),
    "CamVid": Layout("object-masks", camvid, camvid_labels, camvid_image, stuff=True),
    "nuclei": Layout("mask-files", nuclei, nuclei_labels, nuclei_image, one_class=True),
    "folders of masks": Layout(
        "mask-files", folders_of_masks, lambda s, n: s / "masks" / n, camvid_image, one_class=True
    ),
    "YOLO": Layout("yolo", yolo, yolo_labels, yolo_image, iou=0.98),
    "labelme": Layout("labelme", labelme, labelme_labels, labelme_image, iou=0.98),
    "labelme masks": Layout("labelme", labelme_masks, labelme_labels, labelme_image),
}
