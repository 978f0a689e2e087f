"""What a prepared data set holds of its images: a table of all records, and one example for each in the shards."""

import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Bool, Int32, Int64

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.dataset import Record, Segment

_AT_ONCE = 64  # records read at once


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
    def load(cls, path: Path, *, classes: int) -> "RecordTable":
        """Raises whatever NumPy and zipfile do, or ValueError: no file that `save` wrote, for so many classes."""
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed")  # and could hold any number of records
        with np.load(path, allow_pickle=False) as arrays:
            columns = {field.name: arrays[field.name] for field in fields(cls)}
        texts = {name: tuple(json.loads(columns[name].tobytes())) for name in ("image_ids", "image_paths")}
        kinds = {"sizes": np.int32, "starts": np.int64, "ids": np.int64, "categories": np.int32, "crowds": bool}
        for name, kind in kinds.items():
            if columns[name].dtype != kind or columns[name].ndim != (2 if name == "sizes" else 1):
                raise ValueError(f"{name} is an array of another kind")
        table = cls(**columns | texts)
        count, segments = len(table.image_ids), len(table.ids)
        agree = (
            len(table.image_paths) == count
            and all(isinstance(text, str) for text in table.image_paths)
            and all(isinstance(name, int | str) for name in table.image_ids)
            and table.sizes.shape == (count, 2)
            and table.starts.shape == (count + 1,)
            and table.starts[0] == 0
            and table.starts[-1] == segments == len(table.categories) == len(table.crowds)
        )
        if not agree or (np.diff(table.starts) < 0).any() or (table.sizes < 1).any():
            raise ValueError("its columns contradict each other")
        if segments and not 0 <= table.categories.min() <= table.categories.max() < classes:
            raise ValueError("it has segments of other classes")
        return table

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


class Examples:
    """Random access to the examples of shards, whose images are left encoded.

    TensorFlow Datasets would import whatever class `features.json` names: what an example holds is known here, and
    neither that file nor `dataset_info.json` is read. A pickle of it opens the shards anew.
    """

    def __init__(self, shards: tuple[str, ...], count: int, categories: Categories) -> None:
        import tensorflow_datasets as tfds
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        self._arguments = shards, count, categories
        counts = [len(part) for part in np.array_split(np.arange(count), len(shards))]
        places = [Place(shard, 0, number, number) for shard, number in zip(shards, counts, strict=True)]
        self._records = ArrayRecordDataSource(places)
        self._features, self._decoders = features_of(categories), {"image": tfds.decode.SkipDecoding()}

    def __len__(self) -> int:
        return self._arguments[1]

    def __getitem__(self, i: int) -> dict[str, Any]:
        example: dict[str, Any] = self._features.deserialize_example_np(self._records[i], decoders=self._decoders)
        return example

    def __reduce__(self) -> tuple[type["Examples"], tuple[Any, ...]]:
        return Examples, self._arguments


def is_whole(shard: Path, count: int) -> bool:
    """Whether a shard is there and holds `count` records whose checksums agree: all of it is read."""
    from array_record.python.array_record_module import ArrayRecordReader

    if not shard.is_file():
        return False
    try:
        reader = ArrayRecordReader(str(shard))
        try:
            if reader.num_records() != count:
                return False
            for start in range(0, count, _AT_ONCE):
                reader.read(start, min(start + _AT_ONCE, count))
        finally:
            reader.close()
    except (RuntimeError, ValueError, IndexError, OSError):  # how it says that bytes are damaged
        return False
    return True


@dataclass(frozen=True)
class Place:
    """All records of a shard, in the words of ArrayRecord."""

    filename: str
    skip: int
    take: int
    examples_in_shard: int


def features_of(categories: Categories) -> Any:
    """What an example holds, in the terms of TensorFlow Datasets.

    `panoptic` is the file of a PNG, empty where the segments have masks of their own: COCO's compressed run lengths.
    """
    import tensorflow_datasets as tfds

    segment = {
        "id": np.int64,
        "category": tfds.features.ClassLabel(names=_different(categories.names)),
        "iscrowd": np.bool_,
        "mask": tfds.features.Text(),
    }
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(),
            "image_id": tfds.features.Text(),
            "file_name": tfds.features.Text(),
            "height": np.int32,
            "width": np.int32,
            "panoptic": tfds.features.Text(),
            "segments": tfds.features.Sequence(segment),
        }
    )


def _different(names: Sequence[str]) -> list[str]:
    """Class names as TensorFlow Datasets wants them: one line each, none twice."""
    lines = [" ".join(name.split()) for name in names]
    return [f"{line} ({i})" if not line or lines.count(line) > 1 else line for i, line in enumerate(lines)]
