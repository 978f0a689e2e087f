"""Data prepared as shards: the same samples as from folders, and no half-written folder that opens."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from oneformer_jax.data.augmentation import AugmentationSettings
from oneformer_jax.data.batch import Batch
from oneformer_jax.data.datasets.check_files import check_files, version_of
from oneformer_jax.data.datasets.dataset import Dataset, EncodedRecord
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.data.datasets.tfds_builder import INFO, prepare, shard_name
from oneformer_jax.data.datasets.tfds_dataset import PreparedDataset
from oneformer_jax.data.datasets.tfds_records import RecordTable
from oneformer_jax.data.pipeline import PipelineSettings, train_batches
from oneformer_jax.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
SMALL = 2**12  # bytes of a shard: the drawn pictures fill several


@pytest.fixture(scope="module")
def mixed(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two annotation files: PNGs of every class; boxes that overlap, one of them a crowd, and an image without any."""
    content = json.loads((drawn / "val" / "annotations.json").read_text())
    annotations: list[dict[str, Any]] = []
    for annotation in content["annotations"][1:]:
        for info in annotation["segments_info"]:
            x, y, w, h = info["bbox"]
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            entry = {"id": len(annotations) + 1, "image_id": annotation["image_id"], "iscrowd": int(not annotations)}
            annotations.append(entry | {"category_id": info["category_id"], "segmentation": [outline]})
    boxes = tmp_path_factory.mktemp("mixed") / "boxes.json"
    boxes.write_text(json.dumps({**content, "annotations": annotations}))
    train = drawn / "train"
    return open_sources(
        [
            Source(train / "annotations.json", train / "images", train / "panoptic", "whole"),
            Source(boxes, drawn / "val" / "images", None, "boxes"),
        ]
    )


@pytest.fixture(scope="module")
def folder(mixed: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    prepare({"train": mixed}, folder, shard_bytes=SMALL)
    return folder


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A prepared folder that a test may damage."""
    return Path(shutil.copytree(folder, tmp_path / "copied"))


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.array_record-*"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


def batches(dataset: Dataset, **changes: object) -> list[Batch]:
    settings = PipelineSettings(
        batch_size=4,
        num_queries=20,
        n_ctx=4,
        max_segments=16,
        planes=dataset.planes,
        task_prob={"semantic": 1.0, "instance": 1.0, "panoptic": 1.0},
        augmentation=AugmentationSettings(crop=(48, 64)),
        cutmix_prob=0.3,
        seed=5,
        num_workers=0,
    )
    stream = train_batches(dataset, dataclasses.replace(settings, **changes), first_sample=8)
    found = list(islice(stream, 8))
    stream.close()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 3])
def test_batches_are_those_of_the_folders(mixed: Dataset, folder: Path, workers: int) -> None:
    prepared = PreparedDataset(folder, "train")
    assert len(shards(folder)) > 3
    assert prepared.planes == mixed.planes > 1
    for ours, theirs in zip(batches(prepared, num_workers=workers), batches(mixed), strict=True):
        for name, x, y in zip(Batch._fields, ours, theirs, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=name, strict=True)
    assert "tensorflow" not in sys.modules


def test_records_categories_and_pixels_are_those_of_the_folders(mixed: Dataset, folder: Path) -> None:
    prepared = PreparedDataset(folder, "train")
    assert prepared.categories == mixed.categories
    assert prepared.parts == mixed.parts
    fields = [field.name for field in dataclasses.fields(mixed.records[0]) if field.name != "panoptic_path"]
    for i in reversed(range(len(mixed))):
        for name in fields:
            assert getattr(prepared.records[i], name) == getattr(mixed.records[i], name)
        np.testing.assert_array_equal(prepared.read_image(i), mixed.read_image(i), strict=True)
        np.testing.assert_array_equal(prepared.read_segments(i), mixed.read_segments(i), strict=True)
        assert prepared.encoded(i) == mixed.encoded(i)
    assert prepared.records[-1] == prepared.records[len(mixed) - 1]
    assert [record.image_id for record in prepared.records[2:4]] == [record.image_id for record in mixed.records[2:4]]
    with pytest.raises(IndexError):
        prepared.records[len(mixed)]


def test_prepared_data_can_be_prepared_again(folder: Path, tmp_path: Path) -> None:
    prepared = PreparedDataset(folder, "train")
    prepare({"train": prepared}, tmp_path, shard_bytes=2**30)
    (shard,) = shards(tmp_path)
    again = PreparedDataset(tmp_path, "train")
    assert [again.encoded(i) for i in range(len(again))] == [prepared.encoded(i) for i in range(len(prepared))]
    assert (shard.stat().st_size,) == tuple(json.loads((tmp_path / "metadata.json").read_text())["sizes"].values())


@pytest.mark.filterwarnings("ignore:label\\(\\) is deprecated:DeprecationWarning")  # of its use of protobuf
def test_tensorflow_datasets_alone_reads_it(mixed: Dataset, folder: Path) -> None:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(folder))
    examples = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    names = builder.info.features["segments"]["category"].names
    for i, record in enumerate(mixed.records):
        assert examples[i]["image"] == record.image_path.read_bytes()
        assert examples[i]["segments"]["id"] == [segment.id for segment in record.segments]
        shown = [names[category] for category in examples[i]["segments"]["category"]]
        assert shown == [mixed.categories.names[segment.category] for segment in record.segments]


def test_a_table_without_segments(tmp_path: Path, mixed: Dataset) -> None:
    bare = [dataclasses.replace(record, segments=()) for record in mixed.records[:2]]
    RecordTable.of(bare).save(tmp_path / "table.npz")
    assert [record.segments for record in RecordTable.load(tmp_path / "table.npz", classes=1)] == [(), ()]


class Interrupted(Dataset):
    """A data set that cannot be read from one record on."""

    def __init__(self, whole: Dataset, at: int) -> None:
        self.whole, self.at, self.asked = whole, at, list[int]()
        self.records, self.categories, self.where, self.parts = (
            whole.records,
            whole.categories,
            whole.where,
            whole.parts,
        )

    @property
    def planes(self) -> int:
        return self.whole.planes

    def encoded(self, i: int) -> EncodedRecord:
        self.asked.append(i)
        if i == self.at:
            raise InterruptedError(f"at {i}")
        return self.whole.encoded(i)


def test_an_interrupted_preparation_does_not_open_and_goes_on(mixed: Dataset, folder: Path, tmp_path: Path) -> None:
    progress: list[int] = []
    with pytest.raises(InterruptedError, match="at 9"):
        prepare({"train": Interrupted(mixed, 9)}, tmp_path, shard_bytes=SMALL)
    with pytest.raises(DataError, match=r"(?s)not completely prepared.*prepare` again"):
        PreparedDataset(tmp_path, "train")
    finished = {path: path.stat().st_ino for path in shards(tmp_path) if path.suffix != ".part"}
    assert finished
    rest = Interrupted(mixed, -1)
    prepare({"train": rest}, tmp_path, shard_bytes=SMALL, progress=progress.append)
    assert {path: path.stat().st_ino for path in finished} == finished
    assert min(rest.asked) > 0
    assert progress == sorted(progress)
    assert progress[-1] == len(mixed)
    # Shards hold no trace of the interruption.
    assert [path.read_bytes() for path in shards(tmp_path)] == [path.read_bytes() for path in shards(folder)]
    assert contents(tmp_path).keys() == contents(folder).keys()


KILLED = """
import sys, time
from pathlib import Path
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.data.datasets.tfds_builder import prepare

split, folder = map(Path, sys.argv[1:])
dataset = open_sources([Source(split / "annotations.json", split / "images", split / "panoptic")])
prepare({"train": dataset}, folder, shard_bytes=2**12, progress=lambda done: time.sleep(0.2))
"""


def test_a_preparation_that_is_killed_goes_on(drawn: Path, train: Dataset, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(drawn / "train"), str(tmp_path / "killed")]
    with subprocess.Popen(command, cwd=ROOT) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "killed").is_dir() or len(shards(tmp_path / "killed")) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    with pytest.raises(DataError, match="not completely prepared"):
        PreparedDataset(tmp_path / "killed", "train")
    before = {path: path.stat().st_ino for path in shards(tmp_path / "killed") if path.suffix != ".part"}
    prepare({"train": train}, tmp_path / "killed", shard_bytes=SMALL)
    assert {path: path.stat().st_ino for path in before} == before
    prepared = PreparedDataset(tmp_path / "killed", "train")
    assert [prepared.encoded(i) for i in range(len(train))] == [train.encoded(i) for i in range(len(train))]
    assert not list((tmp_path / "killed").glob("*.part"))


def test_nothing_is_written_twice(folder: Path, mixed: Dataset) -> None:
    before = {path: path.stat().st_ino for path in shards(folder)}
    asked = Interrupted(mixed, 0)
    prepare({"train": asked}, folder, shard_bytes=SMALL)
    assert not asked.asked
    assert {path: path.stat().st_ino for path in shards(folder)} == before


def test_a_split_is_added(copied: Path, mixed: Dataset) -> None:
    prepare({"train": mixed, "val": mixed}, copied, shard_bytes=SMALL)
    np.testing.assert_array_equal(PreparedDataset(copied, "val").read_image(3), mixed.read_image(3))


@pytest.mark.parametrize("damage", ["flipped", "zeroed"])
def test_preparing_again_mends_shards_whose_bytes_have_changed(
    copied: Path, mixed: Dataset, folder: Path, damage: str
) -> None:
    victim = shards(copied)[0]
    content = bytearray(victim.read_bytes())
    place = content.index(mixed.encoded(0).image[-200:]) + 100
    content[place] ^= 255
    victim.write_bytes(content if damage == "flipped" else bytes(len(content)))
    prepare({"train": mixed}, copied, shard_bytes=SMALL)
    assert victim.read_bytes() == (folder / victim.name).read_bytes()


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"layout": 1}'])
def test_preparing_again_mends_metadata(copied: Path, mixed: Dataset, folder: Path, content: bytes | None) -> None:
    path = copied / "metadata.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"metadata.json: [^\n]*\n  -> "):
        PreparedDataset(copied, "train")
    prepare({"train": mixed}, copied, shard_bytes=SMALL)
    assert json.loads(path.read_text()) == json.loads((folder / "metadata.json").read_text())


def test_a_damaged_plan_says_what_to_do(copied: Path, mixed: Dataset) -> None:
    (copied / "plan.json").write_text("garbage")
    with pytest.raises(DataError, match=r"plan.json: not valid JSON.*\n  -> choose another folder, or delete this one"):
        prepare({"train": mixed}, copied, shard_bytes=SMALL)


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_shard_is_named_and_written_anew(copied: Path, mixed: Dataset, folder: Path, damage: str) -> None:
    victim = shards(copied)[1]
    victim.write_bytes(victim.read_bytes()[:-9]) if damage == "cut" else victim.unlink()
    with pytest.raises(DataError, match=rf"(?s){victim.name}: .*prepare` with the same --output again"):
        PreparedDataset(copied, "train")
    prepare({"train": mixed}, copied, shard_bytes=SMALL)
    assert victim.read_bytes() == (folder / victim.name).read_bytes()
    PreparedDataset(copied, "train")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_record_is_named(copied: Path, mixed: Dataset, workers: int) -> None:
    content = bytearray(shards(copied)[0].read_bytes())
    image = mixed.encoded(0).image
    content[content.index(image[-200:]) + 100] ^= 255
    shards(copied)[0].write_bytes(content)
    dataset = PreparedDataset(copied, "train")
    message = rf"record 0 \({mixed.records[0].image_path}\).*: the record cannot be read: .*hash mismatch"
    with pytest.raises(DataError, match=message):
        batches(dataset, num_workers=workers)
    (error,) = check_files(dataset, strict=False).errors
    assert "record 0" in error.where


def test_an_example_of_another_image_is_refused(copied: Path, mixed: Dataset) -> None:
    table = copied / "train.records.npz"
    RecordTable.of(mixed.records[::-1]).save(table)
    with pytest.raises(DataError, match=r"record 0 .*: contains image 0: the shards and the table disagree"):
        PreparedDataset(copied, "train").read_image(0)


def test_the_version_changes_with_the_shards(copied: Path) -> None:
    dataset = PreparedDataset(copied, "train")
    before = version_of(dataset)
    assert version_of(PreparedDataset(copied, "train")) == before
    os.utime(shards(copied)[2], (1, 1))
    assert version_of(dataset) != before


def test_what_does_not_open(folder: Path, copied: Path, mixed: Dataset, drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)no split val.*it has train"):
        PreparedDataset(folder, "val")
    with pytest.raises(DataError, match="prepared with contiguous_id: true, the spec says false"):
        PreparedDataset(folder, "train", contiguous_id=False)
    with pytest.raises(DataError, match=r"(?s)this is not a prepared data set.*prepare --spec"):
        PreparedDataset(drawn, "train")
    label_map = mixed.categories.to_json()
    label_map[0]["name"] = "other"
    (tmp_path / "map.json").write_text(json.dumps(label_map))
    with pytest.raises(DataError, match=r"map\.json: class 0 is 'other' in the label map, but 'disk' in"):
        PreparedDataset(folder, "train", label_maps=[tmp_path / "map.json"])
    (copied / "train.records.npz").write_bytes(b"rubbish")
    with pytest.raises(DataError, match="the table of records cannot be read"):
        PreparedDataset(copied, "train")
    metadata = json.loads((copied / "metadata.json").read_text())
    (copied / "metadata.json").write_text(json.dumps(metadata | {"layout": 0}))
    with pytest.raises(DataError, match="the data has layout 0, but this version reads layout 1"):
        PreparedDataset(copied, "train")


def test_what_is_not_prepared(copied: Path, train: Dataset, mixed: Dataset, tmp_path: Path) -> None:
    before = contents(copied)
    with pytest.raises(DataError, match=r"(?s)prepared from other files.*choose another folder"):
        prepare({"train": train}, copied, shard_bytes=SMALL)
    with pytest.raises(DataError, match="prepared from other files"):
        prepare({"val": mixed}, copied, shard_bytes=SMALL)
    assert contents(copied) == before
    (tmp_path / INFO).write_text("{}")
    with pytest.raises(DataError, match="contains another data set"):
        prepare({"train": train}, tmp_path)


def test_a_full_disk_is_said_and_leaves_nothing_half_written(drawn: Path, tmp_path: Path) -> None:
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n{KILLED}"
    limited = f"import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n{limited}"
    command = [sys.executable, "-c", limited, str(drawn / "train"), str(tmp_path / "out")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "OneFormerError: " in result.stderr
    assert "the file cannot be written: File too large\n  -> free disk space" in result.stderr
    assert not list((tmp_path / "out").rglob("*.array_record*"))
    assert not (tmp_path / "out" / INFO).exists()


def test_shard_names_are_those_of_tensorflow_datasets() -> None:
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir="/x", dataset_name="oneformer", split="val", filetype_suffix="array_record"
    )
    assert str(template.sharded_filepath(shard_index=3, num_shards=12)) == f"/x/{shard_name('val', 3, 12)}"


def test_no_class_that_a_file_names_is_imported(
    copied: Path, mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow Datasets imports what `features.json` names, from any folder of sys.path."""
    marker = tmp_path / "it ran"
    (tmp_path / "evil_features.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    features = json.loads((copied / "features.json").read_text())
    for connector in (features, features["featuresDict"]["features"]["image"]):
        connector["pythonClassName"] = "evil_features.Image"
    (copied / "features.json").write_text(json.dumps(features))
    dataset = PreparedDataset(copied, "train")
    np.testing.assert_array_equal(dataset.read_image(0), mixed.read_image(0))
    assert not marker.exists()


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b'{"featuresDict": 3}'])
def test_files_for_other_programs_may_be_damaged(copied: Path, mixed: Dataset, name: str, content: bytes) -> None:
    (copied / name).write_bytes(content)
    np.testing.assert_array_equal(PreparedDataset(copied, "train").read_image(0), mixed.read_image(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": {"a": "b"}}, "sizes is .*, expected an object whose values are a whole number"),
        ({"parts": {"train": {"": [0]}}}, "parts is "),
        ({"planes": None}, "planes is None"),
        ({"contiguous_id": "yes"}, "contiguous_id is 'yes' .*, expected true or false"),
        ({"categories": 5}, "categories is 5"),
        ({"sizes": {}}, "metadata.json: sizes: found none, expected all shards of train\n  -> run `oneformer prepare`"),
        ({"sizes": {"oneformer-train.array_record-00000-of-00001/../x": 3}}, "sizes: found oneformer-train.array_reco"),
        ({"parts": {"train": {"": [0, 1000000000]}}}, "parts of train: found 0 to 1000000000, expected one after"),
        ({"parts": {"train": {"a": [0, 3], "b": [2, 10]}}}, "parts of train: found 0 to 3, 2 to 10, expected one"),
        ({"planes": {"train": 10**12}}, "planes: found .*, expected 1 to 256 of each split"),
        ({"categories": [{"id": 0, "name": None}]}, "name must be a text, not None"),
    ],
)
def test_metadata_of_another_kind_is_named(copied: Path, change: dict, message: str) -> None:
    path = copied / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=message):
        PreparedDataset(copied, "train")


def test_missing_metadata_is_named_and_that_of_newer_versions_left_alone(copied: Path) -> None:
    path = copied / "metadata.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"carbon": 3}))
    PreparedDataset(copied, "train")
    del content["parts"], content["sizes"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="parts is missing; sizes is missing"):
        PreparedDataset(copied, "train")
    path.write_bytes(b"[" * 100_000)
    with pytest.raises(DataError, match="nested too deeply"):
        PreparedDataset(copied, "train")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("starts", np.array([0, 10**12], np.int64)),
        ("categories", np.array([10**6], np.int32)),
        ("sizes", np.zeros((1, 2), np.int32)),
        ("ids", np.array(["x"])),
        ("image_paths", np.frombuffer(b"[3]", np.uint8)),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(copied: Path, column: str, value: np.ndarray) -> None:
    path = copied / "train.records.npz"
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, column: value})
    with pytest.raises(DataError, match="the table of records cannot be read"):
        PreparedDataset(copied, "train")


def test_a_table_cannot_be_larger_than_its_file(copied: Path) -> None:
    np.savez_compressed(copied / "train.records.npz", ids=np.zeros(10**6, np.int64))
    with pytest.raises(DataError, match="it is compressed"):
        PreparedDataset(copied, "train")
