"""Checks of a data set's files before long work: the headers of all, the pixels of a sample or of all, in parallel.

What can be seen from the annotation files alone is checked by the reader that opens them. A pass is remembered for a
version of the data set: any file that changes ends it.
"""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int

from oneformer_jax.data.datasets.dataset import Dataset, Problems, Record, check_size, front, naming
from oneformer_jax.data.datasets.images import read_header
from oneformer_jax.errors import DataError, OneFormerError
from oneformer_jax.writing import write_json

SAMPLED = 500
_CHECKS = 3  # the version of the checks below: passes of another one do not count
_MAX_THREADS = 16  # decoding releases the interpreter lock; every thread holds an image and a table of segment ids


@dataclass(frozen=True)
class Findings:
    """What the files of a data set hold. `broken` are the records with errors. `pixels` counts those of each class in
    `images_read` images, and, last, those of crowds and of no segment; of overlapping segments the one in front counts.
    """

    errors: list[DataError]
    warnings: list[DataError]
    images_read: int
    pixels: Int[np.ndarray, " k1"]
    broken: list[int] = field(default_factory=list)


def sampled(count: int) -> list[int]:
    """The images whose pixels are read, out of `count`: always the same `SAMPLED` ones."""
    chosen = np.random.default_rng(0).choice(count, min(count, SAMPLED), replace=False)
    return sorted(chosen.tolist())


def check_files(dataset: Dataset, *, strict: bool, progress: Callable[[int], None] = lambda done: None) -> Findings:
    """Reads the header of every file, and the pixels of `sampled` images or, if `strict`, of all.

    `progress` is told after each image how many are done.
    """
    read = set(range(len(dataset)) if strict else sampled(len(dataset)))
    findings = Findings([], [], len(read), np.zeros(len(dataset.categories) + 1, np.int64))
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        for i, checked in enumerate(pool.map(partial(_check, dataset, read), range(len(dataset)))):
            findings.errors.extend(checked.errors)
            findings.broken.extend([i] * bool(checked.errors))
            findings.warnings.extend(checked.warnings)
            findings.pixels[:] += checked.pixels
            progress(i + 1)
    listed = any(not segment.iscrowd for record in dataset.records for segment in record.segments)
    if listed and findings.images_read and not findings.errors and not findings.pixels[:-1].any():
        what = f"none of their segments has a pixel in the {findings.images_read} images that were read"
        findings.errors.append(DataError(what, where=dataset.where))
    return findings


def _check(dataset: Dataset, read: set[int], i: int) -> Findings:
    record = dataset.records[i]
    problems, warnings, pixels = Problems(), [], np.zeros(len(dataset.categories) + 1, np.int64)
    # What lies in files with others was checked when it was stored there.
    for path in record.files[:1]:
        with problems.collected(), naming(record):
            warnings += _check_image_header(record, path)
    for path in record.panoptic_files:
        with problems.collected(), naming(record):
            _check_label_header(record, path)
    if i in read and not problems.errors:
        with problems.collected(), naming(record):
            pixels, empty = _read_pixels(dataset, i)
            warnings += empty
    return Findings(problems.errors, warnings, int(i in read), pixels)


def _check_image_header(record: Record, path: Path) -> list[DataError]:
    header = read_header(path)
    check_size(header.size, record, path)
    if header.orientation == 1:
        return []
    what = f"rotated upright by its EXIF orientation {header.orientation}: check that the annotations fit the result"
    return [DataError(what, where=f"{path}: image {record.image_id}")]


def _check_label_header(record: Record, path: Path) -> None:
    check_size(read_header(path, panoptic=True).size, record, path)


def _read_pixels(dataset: Dataset, i: int) -> tuple[Int[np.ndarray, " k1"], list[DataError]]:
    """Pixels of each class, and a warning if there are segments without any."""
    record, categories = dataset.records[i], dataset.categories
    _, planes = dataset.read(i)
    # The last entry stands for no segment, which planes mark with -1.
    class_of = np.array([len(categories) if s.iscrowd else s.category for s in record.segments] + [len(categories)])
    pixels = np.bincount(class_of[front(planes)].ravel(), minlength=len(categories) + 1)
    visible = np.bincount(planes.ravel() + np.intp(1), minlength=len(record.segments) + 1)[1:]
    empty = [segment for segment, area in zip(record.segments, visible, strict=True) if not area]
    if not empty:
        return pixels, []
    names = ", ".join(f"{segment.id} ({categories.names[segment.category]})" for segment in empty)
    return pixels, [
        DataError(
            f"no pixel shows segment {names}",
            where=f"{[record.image_path, *record.files][-1]}: image {record.image_id}",
        )
    ]


def version_of(dataset: Dataset) -> str:
    """A key that changes with the annotations, and with the size or the time of any file."""
    digest = hashlib.sha256(repr((_CHECKS, dataset.categories)).encode())
    digest.update(repr([(path, _stamp(path)) for path in dataset.shared_files]).encode())
    for record in dataset.records:
        digest.update(repr((record, [_stamp(path) for path in record.files])).encode())
    return digest.hexdigest()


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:  # the check will say what is wrong with it
        return None
    return found.st_size, found.st_mtime_ns


class Passes:
    """The data sets that passed, in a folder: one small JSON file for each version. None: none is remembered."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def holds(self, version: str, *, strict: bool) -> bool:
        """Whether that version passed; where `strict`, with all its pixels read."""
        if self.folder is None:
            return False
        try:
            passed = json.loads((self.folder / f"{version}.json").read_text())
        except (OSError, ValueError):
            return False
        return bool(passed["strict"]) or not strict

    def add(self, version: str, *, strict: bool, where: str) -> None:
        """Remembers a pass, where the disk takes it. A stricter one stays."""
        if self.folder is None or self.holds(version, strict=strict):
            return
        with suppress(OneFormerError):  # it will be checked again
            write_json(self.folder / f"{version}.json", {"annotations": where, "strict": strict})
