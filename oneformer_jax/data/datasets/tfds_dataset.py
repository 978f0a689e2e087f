"""Reads data sets that `tfds_builder` wrote: `tfds://FOLDER` in a spec.

Their records are a few arrays: small in memory, quick to load, whatever the number of images.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16, UInt8

from oneformer_jax.data.datasets.categories import Categories, with_label_map
from oneformer_jax.data.datasets.coco_instances import mask_planes, run_lengths
from oneformer_jax.data.datasets.coco_panoptic import panoptic_plane
from oneformer_jax.data.datasets.dataset import Dataset, EncodedRecord, Problems, Record, check_size
from oneformer_jax.data.datasets.images import EncodedImage, read_image
from oneformer_jax.data.datasets.tfds_records import Examples, RecordTable
from oneformer_jax.data.storage.addresses import PREPARED
from oneformer_jax.errors import DataError
from oneformer_jax.stored import read_json, stored_fields

NAME = "oneformer"
LAYOUT = 1  # the version of what is written here; another one is not read
PREPARE_AGAIN = "run `oneformer prepare` with the same --output again: it writes what is missing or damaged"
MOST_PLANES = 256
INFO, PLAN, METADATA = "dataset_info.json", "plan.json", "metadata.json"


@dataclass(frozen=True)
class PreparedInfo:
    """What `metadata.json` says of all splits: see `tfds_builder`."""

    layout: int
    contiguous_id: bool
    categories: list[Any]
    planes: dict[str, int]
    parts: dict[str, dict[str, tuple[int, int]]]
    made_of: dict[str, str]
    sizes: dict[str, int]


def shard_name(split: str, number: int, count: int) -> str:
    """As TensorFlow Datasets names it."""
    return f"{NAME}-{split}.array_record-{number:05d}-of-{count:05d}"


def table_name(split: str) -> str:
    """The file of a split's `RecordTable`."""
    return f"{split}.records.npz"


def stored_sizes(folder: Path) -> dict[str, int]:
    """The bytes of every shard of a complete data set; empty where it is none yet."""
    return _metadata(folder).sizes if (folder / INFO).is_file() else {}


class PreparedDataset(Dataset):
    """One split of a prepared folder: the records, in the order, of the data set that it was made of.

    Opening reads the table of records and the names and sizes of the shards, no image.

    Raises:
        DataError: no complete data set of this layout, without that split, with shards that are missing or cut short,
            categories other than those of a label map, or class indices that were counted otherwise than
            `contiguous_id` says.
    """

    def __init__(
        self, folder: Path, split: str, *, contiguous_id: bool = True, label_maps: Iterable[Path] = ()
    ) -> None:
        metadata = _metadata(folder)
        if split not in metadata.parts:
            raise DataError(
                f"the prepared data set has no split {split}",
                where=str(folder),
                hint=f"it has {', '.join(metadata.parts)}; prepare a spec whose dataset.{split} is set",
            )
        if metadata.contiguous_id != contiguous_id:
            stated, wanted = (str(value).lower() for value in (metadata.contiguous_id, contiguous_id))
            raise DataError(
                f"prepared with contiguous_id: {stated}, the spec says {wanted}",
                where=str(folder),
                hint="class indices are assigned when data is prepared: prepare it again, or change the spec",
            )
        self.where = f"{PREPARED}{folder} ({split})"
        self.categories = Categories.from_json(metadata.categories, where=str(folder))
        for path in label_maps:
            ids = {category.id for category in self.categories.items}
            self.categories, warnings = with_label_map(self.categories, path, stated=ids, contiguous_id=contiguous_id)
            self.warnings += warnings
        self.parts = {name: range(*ends) for name, ends in metadata.parts[split].items()}
        self._planes = metadata.planes.get(split, 1)
        shards = _shards(folder, split)
        table = folder / table_name(split)
        self.shared_files = (*shards, table, folder / METADATA)
        try:
            self.records = RecordTable.load(table, classes=len(self.categories))
        except Exception as error:  # of NumPy, zipfile, zlib and JSON: damaged bytes bring up nearly every kind
            what = f"the table of records cannot be read: {error}"
            raise DataError(what, where=str(table), hint=PREPARE_AGAIN) from error
        ends = [0, *(part.stop for part in self.parts.values())]
        if [part.start for part in self.parts.values()] != ends[:-1] or ends[-1] != len(self.records):
            found = ", ".join(f"{part.start} to {part.stop}" for part in self.parts.values())
            what = f"parts of {split}: found {found[:200]}, expected one after the other, to {len(self.records)}"
            raise DataError(what, where=str(folder / METADATA), hint=PREPARE_AGAIN)
        self._examples = Examples(tuple(map(str, shards)), len(self.records), self.categories)

    @property
    def planes(self) -> int:
        return self._planes

    def _example(self, i: int) -> tuple[Record, dict[str, Any], str]:
        record = self.records[i]
        where = f"{self.where}, record {i} ({record.image_path})"
        try:
            example = self._examples[i]
            image_id = json.loads(example["image_id"])
        except Exception as error:  # of the reader, which knows damage by its checksums, and of the parser
            raise DataError(f"the record cannot be read: {error}", where=where, hint=PREPARE_AGAIN) from error
        if image_id != record.image_id:
            found = example["image_id"].decode()
            what = f"contains image {found}: the shards and the table disagree"
            raise DataError(what, where=where, hint=PREPARE_AGAIN)
        return record, example, where

    def read_image(self, i: int) -> UInt8[np.ndarray, "h w 3"]:
        return _pixels(*self._example(i))

    def read_segments(self, i: int) -> Int16[np.ndarray, "r h w"]:
        return _segments(*self._example(i))

    def read(self, i: int) -> tuple[UInt8[np.ndarray, "h w 3"], Int16[np.ndarray, "r h w"]]:
        found = self._example(i)
        return _pixels(*found), _segments(*found)

    def encoded(self, i: int) -> EncodedRecord:
        _, example, _ = self._example(i)
        masks = () if example["panoptic"] else tuple(example["segments"]["mask"])
        return EncodedRecord(example["image"], example["panoptic"], masks)


def _pixels(record: Record, example: dict[str, Any], where: str) -> UInt8[np.ndarray, "h w 3"]:
    file = EncodedImage(example["image"], where)
    image = read_image(file)
    check_size(image.shape[:2], record, file)
    return image


def _segments(record: Record, example: dict[str, Any], where: str) -> Int16[np.ndarray, "r h w"]:
    if example["panoptic"]:
        return panoptic_plane(EncodedImage(example["panoptic"], f"{where}, panoptic PNG"), record)
    size = record.height, record.width
    return mask_planes(run_lengths(example["segments"]["mask"], size), size)


def _metadata(folder: Path) -> PreparedInfo:
    if not (folder / INFO).is_file():
        started = (folder / PLAN).is_file()
        raise DataError(
            "the data set is not completely prepared" if started else "this is not a prepared data set",
            where=str(folder),
            hint="run `oneformer prepare` again: it continues where it was interrupted"
            if started
            else "make one with `oneformer prepare --spec SPEC --output FOLDER`",
        )
    path = folder / METADATA
    try:
        content = read_json(path)
        if isinstance(content, dict) and content.get("layout") != LAYOUT:
            raise DataError(
                f"the data has layout {content.get('layout')}, but this version reads layout {LAYOUT}",
                where=str(folder),
                hint="prepare the data again, in another folder",
            )
        found, _ = stored_fields(PreparedInfo, content, where=str(path), error=DataError)
    except DataError as error:
        raise DataError(error.what, where=error.where, hint=error.hint or PREPARE_AGAIN) from error
    named = {split: [name for name in found["sizes"] if _is_shard_of(split, name)] for split in found["parts"]}
    whole = {split: [shard_name(split, i, len(names)) for i in range(len(names))] for split, names in named.items()}
    shards = sorted(name for names in whole.values() for name in names)
    if sorted(found["sizes"]) != shards or not all(named.values()):
        listed = ", ".join(sorted(found["sizes"]))[:200] or "none"
        what = f"sizes: found {listed}, expected all shards of {', '.join(found['parts'])}"
        raise DataError(what, where=str(path), hint=PREPARE_AGAIN)
    if any(not 1 <= count <= MOST_PLANES for count in found["planes"].values()):
        what = f"planes: found {str(found['planes'])[:200]}, expected 1 to {MOST_PLANES} of each split"
        raise DataError(what, where=str(path), hint=PREPARE_AGAIN)
    parts = {split: {name: tuple(ends) for name, ends in of.items()} for split, of in found["parts"].items()}
    return PreparedInfo(**found | {"parts": parts})


def _is_shard_of(split: str, name: str) -> bool:
    return name.startswith(f"{shard_name(split, 0, 0).partition('-00000-')[0]}-")


def _shards(folder: Path, split: str) -> list[Path]:
    """The shards of a split, all there and of the size that they had when they were written."""
    sizes, problems = stored_sizes(folder), Problems()
    paths = sorted(folder / name for name in sizes if _is_shard_of(split, name))
    for path in paths:
        found = path.stat().st_size if path.is_file() else None
        if found != sizes[path.name]:
            what = "the shard is missing" if found is None else f"found {found} bytes, expected {sizes[path.name]}"
            problems.errors.append(DataError(what, where=str(path), hint=PREPARE_AGAIN))
    problems.raise_all()
    return paths
