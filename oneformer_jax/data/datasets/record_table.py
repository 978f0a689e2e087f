"""The records of a data set as a few arrays: small in memory, quick to load, whatever the number of images."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Bool, Int32, Int64

from oneformer_jax.data.datasets.dataset import Record, Segment


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
        image_ids, paths, sizes, starts = [], [], [], [0]
        segments: list[Segment] = []
        for record in records:
            image_ids.append(record.image_id)
            paths.append(str(record.image_path))
            sizes.append((record.height, record.width))
            segments += record.segments
            starts.append(len(segments))
        ids, categories, crowds = zip(*segments, strict=True) if segments else ((), (), ())
        return cls(
            tuple(image_ids),
            tuple(paths),
            np.array(sizes, np.int32).reshape(-1, 2),
            np.array(starts, np.int64),
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
