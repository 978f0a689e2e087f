"""Inference results as files: an overlay and the raw result of every image, in formats that other tools read."""

import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.images import panoptic_colors
from oneformer_jax.data.storage.folders import entries
from oneformer_jax.errors import OneFormerError
from oneformer_jax.postprocess.results import PanopticResult, Result, Thresholds
from oneformer_jax.predict.draw import draw_result
from oneformer_jax.predict.formats.coco import as_json, category_id
from oneformer_jax.tasks import TASKS, Task
from oneformer_jax.writing import write_bytes, write_json

Format = Literal["overlay", "png", "json"]
FORMATS: dict[Task, tuple[Format, ...]] = {
    "semantic": ("overlay", "png"),
    "instance": ("overlay", "json"),  # masks overlap, which no picture holds
    "panoptic": ("overlay", "png", "json"),
}
LABEL_MAP = "label_map.json"
PICTURES = (".png", ".jpg", ".jpeg")


class ResultWriter:
    """Writes the results of one task into a folder of its own, `folder / task`. A context manager: it removes what an
    earlier run left there (see `earlier_results`), and writes the JSON file at the end, of all images
    that are done then, whatever ends it.

    For an image `street.png` (raw results have the size of the image):

    - every task: `street.jpg`, the overlay (see `draw` for its size), and once `label_map.json`, the categories;
    - semantic: `street.png`, grey values are class indices, i.e. positions in the label map (16 bits from 257 classes
      on); where only some classes are wanted, 255 or, from 256 classes on, 65535 stands for the others;
    - panoptic: `street.png`, segment id = R + 256 G + 65536 B with 0 for none, and `panoptic.json` in COCO panoptic
      format; its segments also carry `score`;
    - instance: `instance.json`, a list in COCO's results format (run-length encoded masks); its entries also carry
      `file_name`.

    `category_id` is the raw id of the label map. `image_id` is the number that the file name consists of if that holds
    for all images (as in COCO), else the position of the image, from 1. Images of one name get as much of their folders
    into it as tells them apart: `north_street.jpg`, and `north/street.png` in JSON. Two images that differ only in
    their suffix or in upper and lower case get the suffix: `street_png.jpg`. A file appears complete or not at all.

    Images may be added in any order: the JSON files have that of `image_paths`. Drawings show the instances that reach
    `min_score`; `instance.json` has all of them. `formats` are the kinds of files, None for all that the task has
    (`FORMATS`); without `names`, overlays have no text. Raises OneFormerError, naming the file: the disk is full, the
    folder is not writable or holds something else.
    """

    def __init__(
        self,
        folder: Path,
        task: Task,
        categories: Categories,
        image_paths: Sequence[Path],
        min_score: float = Thresholds.object_mask_threshold,
        *,
        formats: Collection[Format] | None = None,
        names: bool = True,
    ) -> None:
        self.folder, self.task, self.categories, self.min_score = folder / task, task, categories, min_score
        self.formats, self.names = FORMATS[task] if formats is None else formats, names
        self._stale = partial(earlier_results, folder, task, image_paths)
        self._names = dict(zip(image_paths, output_names(image_paths), strict=True))
        self._file_names = dict(zip(image_paths, _tails(image_paths), strict=True))
        self._ids = dict(zip(image_paths, _image_ids(image_paths), strict=True))
        self._images: dict[Path, dict[str, Any]] = {}
        self._annotations: dict[Path, list[dict[str, Any]]] = {}

    def __enter__(self) -> "ResultWriter":
        for path in self._stale():
            path.unlink()
        write_json(self.folder / LABEL_MAP, self.categories.to_json(), indent=None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with nullcontext() if kind is None else suppress(OneFormerError):  # what failed first is the message
            if "json" in self.formats and (kind is None or self._annotations):
                self._write_json()

    def _write_json(self) -> None:
        """What tools read, of all images that are done."""
        done = [path for path in self._ids if path in self._annotations]
        annotations = [annotation for path in done for annotation in self._annotations[path]]
        if self.task == "instance":
            write_json(self.folder / "instance.json", annotations, indent=None)
        elif self.task == "panoptic":
            images, categories = [self._images[path] for path in done], self.categories.to_json()
            content = {"images": images, "annotations": annotations, "categories": categories}
            write_json(self.folder / "panoptic.json", content, indent=None)

    def add(self, path: Path, image: UInt8[np.ndarray, "h w 3"], result: Result) -> list[Path]:
        """Writes the files of one image and returns their paths, the overlay first. `result` is that of the task.

        Raises ValueError: it has another task's.
        """
        if getattr(result, self.task) is None:
            raise ValueError(f"no {self.task} result")
        name, made = self._names[path], dict[str, Shaped[np.ndarray, "h w *rgb"]]()
        if "overlay" in self.formats:
            drawn = draw_result(image, result, self.task, self.categories, self.min_score, names=self.names)
            made[f"{name}.jpg"] = drawn
        if "png" in self.formats:
            made[f"{name}.png"] = self._raw(result)
        for file_name, pixels in made.items():
            write_image(self.folder / file_name, pixels)
        if "json" in self.formats:
            self._add_json(path, f"{name}.png", result)
        return [self.folder / file_name for file_name in made]

    def _raw(self, result: Result) -> Shaped[np.ndarray, "h w *rgb"]:
        if result.panoptic is not None:
            return panoptic_colors(result.panoptic.ids)
        class_map = result.semantic
        assert class_map is not None
        if class_map.dtype.kind == "u":
            return class_map
        grey = np.uint8 if len(self.categories) < 256 else np.uint16
        return np.where(class_map < 0, np.iinfo(grey).max, class_map).astype(grey)

    def _add_json(self, path: Path, raw: str, result: Result) -> None:
        if result.panoptic is not None:
            self._add_panoptic(path, raw, result.panoptic)
            return
        self._annotations[path] = [
            {
                "image_id": self._ids[path],
                "file_name": self._file_names[path],
                "category_id": category_id(self.categories, instance.category),
                "score": instance.score,
                "bbox": list(instance.box),
                "segmentation": as_json(instance.mask),
            }
            for instance in result.instance or ()
        ]

    def _add_panoptic(self, path: Path, raw: str, result: PanopticResult) -> None:
        height, width = result.ids.shape
        image_id = self._ids[path]
        self._images[path] = {
            "id": image_id,
            "file_name": self._file_names[path],
            "height": height,
            "width": width,
        }
        segments = [
            {
                "id": segment.id,
                "category_id": category_id(self.categories, segment.category),
                "iscrowd": 0,
                "area": segment.area,
                "bbox": list(cv2.boundingRect((result.ids == segment.id).view(np.uint8))),
                "score": segment.score,
            }
            for segment in result.segments
        ]
        self._annotations[path] = [{"image_id": image_id, "file_name": raw, "segments_info": segments}]


def earlier_results(folder: Path, task: Task, image_paths: Sequence[Path]) -> list[Path]:
    """What a `ResultWriter` of these images finds of an earlier run, and replaces.

    Raises OneFormerError: its folder holds images of these, or files that it would not replace, so that results of two
    runs would be mixed, or that no `ResultWriter` has written.
    """
    place = folder / task
    found = entries(place) if place.is_dir() else []
    there = os.path.realpath(place)
    inside = [path for path in image_paths if found and os.path.dirname(os.path.realpath(path)) == there]
    if inside:
        raise OneFormerError(
            f"{len(inside)} of the pictures lie where the results would be, such as {inside[0].name}",
            where=str(place),
            hint="choose another folder for the results: these pictures would be replaced",
        )
    own = {f"{name}{suffix}" for name in output_names(image_paths) for suffix in (".jpg", ".png")} | {f"{task}.json"}
    if place / LABEL_MAP not in found:
        own = set()
    replaced = [path for path in found if path.name in own and path.is_file()]
    others = [path.name for path in found if path.name != LABEL_MAP and not (path.name in own and path.is_file())]
    if others:
        raise OneFormerError(
            f"the folder holds {len(others)} files that do not belong to the results of these images "
            f"({', '.join(others[:3])}{', ...' if len(others) > 3 else ''})",
            where=str(place),
            hint="choose another folder for the results or delete this one: results of several runs would be mixed",
        )
    return replaced


def is_result(path: Path) -> bool:
    """Whether a picture lies where a `ResultWriter` has written."""
    return path.parent.name in TASKS and (path.parent / LABEL_MAP).is_file()


def output_names(image_paths: Sequence[Path]) -> list[str]:
    """One file name without suffix per image: its stem, with folders before it where file names are the same, and with
    its suffix behind it where stems are."""
    stems = [_in_one_folder(PurePath(tail)) for tail in _tails(image_paths)]
    folded = [_folded(stem) for stem in stems]
    count = Counter(folded)
    taken = {key for key in folded if count[key] == 1}
    names = []
    for path, stem, key in zip(image_paths, stems, folded, strict=True):
        name = stem
        if count[key] > 1:
            name = stem_and_suffix = f"{stem}_{path.suffix.lstrip('.')}"
            number = 2
            while _folded(name) in taken:
                name, number = f"{stem_and_suffix}_{number}", number + 1
            taken.add(_folded(name))
        names.append(name)
    return names


def _tails(paths: Sequence[Path]) -> list[str]:
    """The shortest end of each path that no other path has; all of it where there is none."""
    depths = [1] * len(paths)
    while True:
        tails = [PurePath(*path.parts[-depth:]).as_posix() for path, depth in zip(paths, depths, strict=True)]
        count = Counter(map(_folded, tails))
        deeper = [
            min(depth + (count[_folded(tail)] > 1), len(path.parts))
            for path, depth, tail in zip(paths, depths, tails, strict=True)
        ]
        if deeper == depths:
            return tails
        depths = deeper


def _in_one_folder(path: PurePath) -> str:
    """A path without suffix as the name of a file, which is not hidden because of its folders."""
    folders = "_".join(part for part in path.parts[:-1] if part not in (path.root, "..")).lstrip(".")
    return f"{folders}_{path.stem}" if folders else path.stem


def _folded(name: str) -> str:
    """What file systems that know neither case nor normal forms take for the same name."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def check_picture_path(path: Path) -> None:
    """Raises OneFormerError where `write_image` could not write a picture of that name, whatever its pixels."""
    if path.is_dir():
        raise OneFormerError("this is a folder, expected a file", where=str(path), hint="name a file in it")
    if path.suffix.lower() not in PICTURES:
        found = path.suffix or "no suffix"
        hint = "the suffix of the name decides the format"
        raise OneFormerError(f"found {found}, expected a picture: {', '.join(PICTURES)}", where=str(path), hint=hint)


def write_image(path: Path, pixels: Shaped[np.ndarray, "h w *rgb"]) -> None:
    """RGB or grey pixels in the format of the suffix: .jpg (quality 92) or .png. Raises OneFormerError."""
    check_picture_path(path)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if path.suffix.lower() != ".png" else []
    done, encoded = cv2.imencode(path.suffix, pixels, options)
    if not done:
        raise OneFormerError(f"an image of {pixels.shape[1]}x{pixels.shape[0]} cannot be written", where=str(path))
    write_bytes(path, encoded.tobytes())


def _image_ids(image_paths: Sequence[Path]) -> list[int]:
    stems = [path.stem for path in image_paths]
    if all(stem.isascii() and stem.isdigit() for stem in stems) and len({int(stem) for stem in stems}) == len(stems):
        return [int(stem) for stem in stems]
    return list(range(1, len(stems) + 1))
