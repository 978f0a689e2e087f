"""A copy of an annotation file without what cannot be used, and what that was. Images and PNGs stay where they are."""

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneformer_jax.data.datasets.check_files import check_files
from oneformer_jax.data.datasets.coco_file import CocoFile, read_coco
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.sources import Source, open_source
from oneformer_jax.errors import DataError
from oneformer_jax.writing import write_json


@dataclass(frozen=True)
class Cleaned:
    """What was written, with the number of its images, of those of the file that it was made of, and of its segments.

    `notes`: what was changed or left out for a kind of reason that is counted; `left_out`: single entries, and images
    with whatever belongs to them; `warnings`: what stays and is worth a look.
    """

    path: Path
    images: int
    all_images: int
    segments: int
    notes: tuple[DataError, ...]
    left_out: list[DataError]
    warnings: list[DataError]


def write_cleaned(
    source: Source,
    path: Path,
    *,
    contiguous_id: bool = True,
    label_maps: Mapping[str, Path] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Cleaned:
    """Writes the annotations of a source to a new file, all of whose entries can be used: every file was read.

    Raises DataError where nothing is left, or for what concerns the whole file; OSError for a file that is there.
    """
    if source.annotations is None:
        hint = "oneformer import writes annotations for them"
        raise DataError("masks of classes have no annotations to clean", where=str(source.panoptic), hint=hint)
    left_out: list[DataError] = []
    coco = read_coco(source.annotations, left_out=left_out)
    dataset = open_source(source, coco, contiguous_id, label_maps or {})
    findings = check_files(dataset, strict=True, progress=progress)
    left_out += findings.errors
    kept = _kept(dataset, set(findings.broken))
    content = _content(coco, kept)
    if not content["annotations"]:
        reasons = [*left_out, *coco.notes]
        raise DataError("no annotation is left that can be used", where=coco.where, hint=str(reasons[0]))
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    write_json(path, content, indent=None)
    return Cleaned(
        path,
        len(content["images"]),
        len(coco.images),
        sum(len(kept[image["id"]]) for image in content["images"]),
        coco.notes,
        left_out,
        findings.warnings,
    )


def _kept(dataset: Dataset, broken: set[int]) -> dict[int | str, set[int | str]]:
    """The images that can be used, and their segments, by their ids."""
    sound = (record for i, record in enumerate(dataset.records) if i not in broken)
    return {record.image_id: {segment.id for segment in record.segments} for record in sound}


def _content(coco: CocoFile, kept: Mapping[int | str, set[int | str]]) -> dict[str, Any]:
    """What is kept of an annotation file; of entries with the same id the first, which is the one that was read."""
    images, masks, annotated = dict[int | str, Any](), dict[int | str, Any](), dict[int | str, Any]()
    for image in coco.images:
        if (number := _id(image, "id")) in kept:
            images.setdefault(number, image)
    for entry in coco.annotations:
        if (number := _id(entry, "image_id")) not in kept:
            continue
        if coco.format == "coco_panoptic":
            annotated.setdefault(number, entry)
        elif (mask := _id(entry, "id")) in kept[number]:
            masks.setdefault(mask, entry)
    annotations = [*annotated.values(), *masks.values()]
    return {**coco.rest, "images": [*images.values()], "annotations": annotations, "categories": coco.categories}


def _id(entry: Any, key: str) -> int | str:
    """An id of an entry that may be anything; "" where there is none."""
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, int | str) and not isinstance(value, bool) else ""
