"""Writes data sets as shards of ArrayRecord that tensorflow-datasets reads, for large and for many-host training.

A folder holds, for each split, shards and a table of its records (`<split>.records.npz`, so that opening it reads no
image), and TensorFlow Datasets' own files: `tfds.builder_from_directory(folder)` opens it anywhere, without this
project. Images and PNGs are stored byte for byte.

A shard has its name when it is complete and on the disk; `dataset_info.json`, without which nothing opens the folder,
comes last. `plan.json` says from which files which shards are made: an interrupted run is continued by the next.
"""

import io
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.check_files import version_of
from oneformer_jax.data.datasets.dataset import Dataset, EncodedRecord, Record
from oneformer_jax.data.datasets.sources import check_same_categories
from oneformer_jax.data.datasets.tfds_dataset import (
    INFO,
    LAYOUT,
    NAME,
    PLAN,
    shard_name,
    table_name,
)
from oneformer_jax.data.datasets.tfds_records import RecordTable, features_of, is_whole
from oneformer_jax.errors import DataError
from oneformer_jax.stored import read_json
from oneformer_jax.writing import appearing_in, write_json

SHARD_BYTES = 2**28
_READERS = 8  # threads that read files ahead, at most a shard


def prepare(
    datasets: Mapping[str, Dataset],
    folder: Path,
    *,
    contiguous_id: bool = True,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Stores data sets, by the names of their splits, in `folder`; what is there already is read, and kept where all of
    its records are sound.

    Args:
        contiguous_id: how the class indices of the data sets were counted (see `Categories.from_json`).
        shard_bytes: about the size of a shard.
        progress: is told how many images are stored, of all splits.

    Raises:
        DataError: the folder holds something else, the data sets have different categories, or a file is unreadable.
        OneFormerError: the disk takes no more.
    """
    first, *others = datasets.values()
    for other in others:
        check_same_categories(first, other)
    folder.mkdir(parents=True, exist_ok=True)
    plan = {split: _plan(dataset, shard_bytes) for split, dataset in datasets.items()}
    _agree_on(plan, folder)
    stored = 0
    for split, dataset in datasets.items():
        shards = plan[split]["shards"]
        encode = _encoder(first.categories)
        for number, records in enumerate(np.array_split(np.arange(len(dataset)), shards)):
            path = folder / shard_name(split, number, shards)
            if not is_whole(path, len(records)):
                _write_shard(path, dataset, records.tolist(), encode)
            stored += len(records)
            progress(stored)
        with appearing_in(folder, table_name(split)) as fresh:
            RecordTable.of(dataset.records).save(fresh / table_name(split))
    _write_info(datasets, plan, folder, contiguous_id)


def _plan(dataset: Dataset, shard_bytes: int) -> dict[str, Any]:
    """Which files a split is made of, and the number of its shards."""
    files = [path for record in dataset.records for path in record.files] + list(dataset.shared_files)
    size = sum(path.stat().st_size for path in files)
    return {"version": version_of(dataset), "shards": max(1, min(len(dataset), round(size / shard_bytes)))}


def _agree_on(plan: dict[str, Any], folder: Path) -> None:
    """Writes the plan. Raises DataError where the folder was made by another one."""
    path = folder / PLAN
    found: dict[str, Any] = {}
    anew = "choose another folder, or delete this one to prepare the data again"
    if path.is_file():
        try:
            found = read_json(path)
        except DataError as error:
            raise DataError(error.what, where=error.where, hint=anew) from error
        if not isinstance(found, dict):
            raise DataError("this is not a plan of prepared data", where=str(path), hint=anew)
    elif (folder / INFO).exists():
        raise DataError("the folder contains another data set", where=str(folder), hint="choose another folder")
    if any(plan.get(split) != planned for split, planned in found.items()):
        raise DataError(
            "the folder contains data that was prepared from other files, or from files that have changed since",
            where=str(folder),
            hint=anew,
        )
    write_json(path, plan)


def _encoder(categories: Categories) -> Callable[[Record, EncodedRecord], bytes]:
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    features = features_of(categories)
    serializer = ExampleSerializer(features.get_serialized_info())

    def encode(record: Record, encoded: EncodedRecord) -> bytes:
        masks = encoded.masks or (b"",) * len(record.segments)
        segments = {
            "id": [segment.id for segment in record.segments],
            "category": [segment.category for segment in record.segments],
            "iscrowd": [segment.iscrowd for segment in record.segments],
            "mask": list(masks),
        }
        example = {
            "image": io.BytesIO(encoded.image),  # a file object is stored as it is
            "image_id": json.dumps(record.image_id),
            "file_name": record.image_path.name,
            "height": record.height,
            "width": record.width,
            "panoptic": encoded.panoptic,
            "segments": segments,
        }
        return serializer.serialize_example(features.encode_example(example))

    return encode


def _write_shard(
    path: Path, dataset: Dataset, records: list[int], encode: Callable[[Record, EncodedRecord], bytes]
) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    with appearing_in(path.parent, path.name) as fresh:
        # Images are compressed already. A group of one record is what random access wants.
        writer = ArrayRecordWriter(str(fresh / path.name), "group_size:1,uncompressed")
        with ThreadPoolExecutor(_READERS) as pool:
            for i, encoded in zip(records, pool.map(dataset.encoded, records), strict=True):
                writer.write(encode(dataset.records[i], encoded))
        writer.close()


def _write_info(datasets: Mapping[str, Dataset], plan: dict[str, Any], folder: Path, contiguous_id: bool) -> None:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.splits import SplitDict, SplitInfo

    first = next(iter(datasets.values()))
    sizes: dict[str, int] = {}
    splits = []
    for split, dataset in datasets.items():
        count = plan[split]["shards"]
        names = [shard_name(split, number, count) for number in range(count)]
        sizes |= {name: (folder / name).stat().st_size for name in names}
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=NAME, split=split, filetype_suffix="array_record"
        )
        lengths = [len(part) for part in np.array_split(np.arange(len(dataset)), count)]
        size = sum(sizes[name] for name in names)
        splits.append(SplitInfo(name=split, shard_lengths=lengths, num_bytes=size, filename_template=template))
    metadata = {
        "layout": LAYOUT,
        "contiguous_id": contiguous_id,
        "categories": first.categories.to_json(),
        "planes": {split: dataset.planes for split, dataset in datasets.items()},
        "parts": {
            split: {name: [part.start, part.stop] for name, part in dataset.parts.items()}
            for split, dataset in datasets.items()
        },
        "made_of": {split: dataset.where for split, dataset in datasets.items()},
        "sizes": sizes,
    }
    identity = tfds.core.DatasetIdentity(
        name=NAME, version=tfds.core.Version(f"{LAYOUT}.0.0"), data_dir=str(folder), module_name=__name__
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description="Images with panoptic PNGs or instance masks, prepared by oneformer_jax.",
        features=features_of(first.categories),
        metadata=tfds.core.MetadataDict(metadata),
    )
    info.set_file_format("array_record")
    info.set_splits(SplitDict(splits))
    with appearing_in(folder, INFO) as fresh:
        info.write_to_directory(fresh)
