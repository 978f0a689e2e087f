"""Reads data sets that `tfds_builder` wrote: `tfds://FOLDER` in a spec.

Their records are a few arrays: small in memory, quick to load, whatever the number of images.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Bool, Int16, Int32, Int64, UInt8

from oneformer_jax.data.datasets.categories import Categories, with_label_map
from oneformer_jax.data.datasets.coco_instances import mask_planes, run_lengths
from oneformer_jax.data.datasets.coco_panoptic import panoptic_plane
from oneformer_jax.data.datasets.dataset import Dataset, EncodedRecord, Problems, Record, Segment, check_size
from oneformer_jax.data.datasets.images import EncodedImage, read_image
from oneformer_jax.errors import DataError

SCHEME = "tfds://"
NAME = "oneformer"
LAYOUT = 1  # the version of what is written here; another one is not read
INFO, PLAN = "dataset_info.json", "plan.json"


def shard_name(split: str, number: int, count: int) -> str:
    """As TensorFlow Datasets names it."""
    return f"{NAME}-{split}.array_record-{number:05d}-of-{count:05d}"


def table_name(split: str) -> str:
    """The file of a split's `RecordTable`."""
    return f"{split}.records.npz"


def stored_sizes(folder: Path) -> dict[str, int]:
    """The bytes of every shard of a complete data set; empty where it is none yet."""
    try:
        return json.loads((folder / "metadata.json").read_text())["sizes"] if (folder / INFO).is_file() else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"not readable: {error!r}", where=str(folder / "metadata.json")) from error


@dataclass(frozen=True, slots=True)
class StoredRecord(Record):
    """An image that lies in a file with others; `image_path` is where it came from."""

    @property
    def files(self) -> tuple[Path, ...]:
        return ()


@dataclass(frozen=True)
class RecordTable(Sequence[Record]):
    """Records that are made when they are asked for.

    `sizes` are (height, width); the segments of record i are rows `starts[i]` to `starts[i + 1]` of `ids`,
    `categories` (class indices) and `crowds`.
    """

    image_ids: tuple[int | str, ...]
    image_paths: tuple[str, ...]
    sizes: Int32[np.ndarray, "n 2"]
    starts: Int64[np.ndarray, " n1"]
    ids: Int64[np.ndarray, " m"]
    categories: Int32[np.ndarray, " m"]
    crowds: Bool[np.ndarray, " m"]

    @classmethod
    def of(cls, records: Iterable[Record]) -> "RecordTable":
        """The table of any records."""
        records = list(records)
        segments = [segment for record in records for segment in record.segments]
        ids, categories, crowds = zip(*segments, strict=True) if segments else ((), (), ())
        return cls(
            tuple(record.image_id for record in records),
            tuple(str(record.image_path) for record in records),
            np.array([(record.height, record.width) for record in records], np.int32).reshape(-1, 2),
            np.cumsum([0, *(len(record.segments) for record in records)], dtype=np.int64),
            np.array(ids, np.int64),
            np.array(categories, np.int32),
            np.array(crowds, bool),
        )

    def save(self, path: Path) -> None:
        """Writes an .npz file; texts lie in it as bytes of JSON."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays: dict[str, Any] = {
            name: _bytes(column) if isinstance(column, tuple) else column for name, column in columns.items()
        }
        with path.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> "RecordTable":
        """Raises OSError, KeyError or ValueError: no file that `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            columns = {field.name: arrays[field.name] for field in fields(cls)}
        texts = {name: tuple(json.loads(columns[name].tobytes())) for name in ("image_ids", "image_paths")}
        return cls(**columns | texts)

    def __len__(self) -> int:
        return len(self.image_ids)

    @overload
    def __getitem__(self, i: int) -> Record: ...
    @overload
    def __getitem__(self, i: slice) -> tuple[Record, ...]: ...
    def __getitem__(self, i: int | slice) -> Record | tuple[Record, ...]:
        if isinstance(i, slice):
            return tuple(self[j] for j in range(*i.indices(len(self))))
        i = range(len(self))[i]
        rows = slice(int(self.starts[i]), int(self.starts[i + 1]))
        columns = (column[rows].tolist() for column in (self.ids, self.categories, self.crowds))
        height, width = self.sizes[i].tolist()
        segments = tuple(map(Segment, *columns))
        return StoredRecord(self.image_ids[i], Path(self.image_paths[i]), height, width, segments)


def _bytes(values: Any) -> np.ndarray:
    return np.frombuffer(json.dumps(values).encode(), np.uint8)


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
        if split not in metadata["parts"]:
            raise DataError(
                f"the prepared data set has no split {split}",
                where=str(folder),
                hint=f"it has {', '.join(metadata['parts'])}; prepare a spec whose dataset.{split} is set",
            )
        if metadata["contiguous_id"] != contiguous_id:
            stated, wanted = (str(value).lower() for value in (metadata["contiguous_id"], contiguous_id))
            raise DataError(
                f"prepared with contiguous_id: {stated}, the spec says {wanted}",
                where=str(folder),
                hint="class indices are assigned when data is prepared: prepare it again, or change the spec",
            )
        self.where = f"{SCHEME}{folder} ({split})"
        self.categories = Categories.from_json(metadata["categories"], where=str(folder))
        for path in label_maps:
            ids = {category.id for category in self.categories.items}
            self.categories, warnings = with_label_map(self.categories, path, stated=ids, contiguous_id=contiguous_id)
            self.warnings += warnings
        self.parts = {name: range(*ends) for name, ends in metadata["parts"][split].items()}
        self._planes: int = metadata["planes"][split]
        shards = _shards(folder, split)
        table = folder / table_name(split)
        self.shared_files = (*shards, table, folder / "metadata.json")
        try:
            self.records = RecordTable.load(table)
        except (OSError, KeyError, ValueError) as error:
            raise DataError(f"the table of records cannot be read: {error}", where=str(table)) from error
        self._examples = _examples(folder, split)
        if len(self._examples) != len(self.records):
            raise DataError(f"{len(self._examples)} examples, but {len(self.records)} records", where=str(folder))

    @property
    def planes(self) -> int:
        return self._planes

    def _example(self, i: int) -> tuple[Record, dict[str, Any], str]:
        record = self.records[i]
        where = f"{self.where}, record {i} ({record.image_path})"
        try:
            example = self._examples[i]
        except (RuntimeError, ValueError, IndexError) as error:  # of the reader, which knows damage by its checksums
            raise DataError(f"the record cannot be read: {error}", where=where) from error
        if json.loads(example["image_id"]) != record.image_id:
            found = example["image_id"].decode()
            raise DataError(f"contains image {found}: the shards and the table disagree", where=where)
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


def _metadata(folder: Path) -> dict[str, Any]:
    if not (folder / INFO).is_file():
        started = (folder / PLAN).is_file()
        raise DataError(
            "the data set is not completely prepared" if started else "this is not a prepared data set",
            where=str(folder),
            hint="run `oneformer prepare` again: it continues where it was interrupted"
            if started
            else "make one with `oneformer prepare --spec SPEC --output FOLDER`",
        )
    try:
        metadata = json.loads((folder / "metadata.json").read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"the data set was not prepared by this project: {error}", where=str(folder)) from error
    if metadata.get("layout") != LAYOUT:
        raise DataError(
            f"the data has layout {metadata.get('layout')}, but this version reads layout {LAYOUT}",
            where=str(folder),
            hint="prepare the data again",
        )
    return metadata


def _shards(folder: Path, split: str) -> list[Path]:
    """The shards of a split, all there and of the size that they had when they were written."""
    sizes, problems = stored_sizes(folder), Problems()
    prefix = shard_name(split, 0, 0).rpartition("-00000-")[0]
    paths = sorted(folder / name for name in sizes if name.startswith(prefix))
    for path in paths:
        found = path.stat().st_size if path.is_file() else None
        if found != sizes[path.name]:
            what = "the shard is missing" if found is None else f"found {found} bytes, expected {sizes[path.name]}"
            hint = "run `oneformer prepare` again: it writes what is missing or damaged"
            problems.errors.append(DataError(what, where=str(path), hint=hint))
    problems.raise_all()
    return paths


def _examples(folder: Path, split: str) -> Any:
    """Random access to the examples, whose images are left encoded."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(folder))
    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
