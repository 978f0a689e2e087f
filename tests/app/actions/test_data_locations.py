"""Data of a spec in archives and at addresses: the same as in folders, and what cannot be used ends the run."""

import io
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from servers import Bucket
from typer.testing import CliRunner

from oneformer_jax.app.cli.commands import app
from oneformer_jax.app.settings.data import dataset_files
from oneformer_jax.app.spec import load_spec
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.files import open_dataset
from oneformer_jax.data.drawn_shapes import write_drawn_shapes
from oneformer_jax.data.storage import archives
from oneformer_jax.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_drawn_shapes(folder, {"train": 3}, size=64, seed=2)
    return folder


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., Dataset]:
    """The training data of a spec with these overrides."""

    def run(*overrides: str) -> Dataset:
        (tmp_path / "spec.yaml").write_text("dataset: {}\n")
        return open_dataset(dataset_files(load_spec(tmp_path / "spec.yaml", overrides), "train"))

    return run


def keys(folder: object, images: str = "images", panoptic: str = "panoptic") -> list[str]:
    return [
        f"dataset.train.images={folder}/{images}",
        f"dataset.train.panoptic={folder}/{panoptic}",
        f"dataset.train.annotations={folder}/annotations.json",
    ]


def check_same(dataset: Dataset, expected: Dataset) -> None:
    assert [record.segments for record in dataset.records] == [record.segments for record in expected.records]
    for i in range(len(expected)):
        np.testing.assert_array_equal(dataset.read_image(i), expected.read_image(i))
        np.testing.assert_array_equal(dataset.read_segments(i), expected.read_segments(i))


@pytest.mark.tao(25)
def test_archives_hold_what_folders_hold(drawn: Path, tmp_path: Path, opened: Callable[..., Dataset]) -> None:
    shutil.make_archive(str(tmp_path / "images"), "gztar", drawn / "train", "images")  # one folder too high
    shutil.make_archive(str(tmp_path / "panoptic"), "zip", drawn / "train" / "panoptic")
    shutil.copy(drawn / "train" / "annotations.json", tmp_path)
    check_same(opened(*keys(tmp_path, "images.tar.gz", "panoptic.zip")), opened(*keys(drawn / "train")))


def test_addresses_hold_what_folders_hold(
    drawn: Path, tmp_path: Path, opened: Callable[..., Dataset], s3: Bucket
) -> None:
    shutil.make_archive(str(tmp_path / "images"), "gztar", drawn / "train", "images")
    s3.put("set/images.tar.gz", (tmp_path / "images.tar.gz").read_bytes())
    s3.put("set/annotations.json", (drawn / "train" / "annotations.json").read_bytes())
    for path in (drawn / "train" / "panoptic").iterdir():
        s3.put(f"set/panoptic/{path.name}", path.read_bytes())
    label_map = s3.put("label_map.json", (drawn / "label_map.json").read_bytes())
    dataset = opened(*keys(f"{s3.address}/set", "images.tar.gz"), f"dataset.label_map={label_map}")
    check_same(dataset, opened(*keys(drawn / "train")))


def test_the_label_map_of_the_format_is_taken(drawn: Path, tmp_path: Path, opened: Callable[..., Dataset]) -> None:
    right, wrong = drawn / "label_map.json", tmp_path / "wrong.json"
    wrong.write_text(json.dumps(json.loads(right.read_text())[::-1]))
    for good in (
        f'{{coco_panoptic: {right}, "*": {wrong}}}',
        f'{{coco_instances: {wrong}, "*": {right}}}',
        f"{{coco_instances: {wrong}}}",
    ):
        opened(*keys(drawn / "train"), f"dataset.label_map={good}")
    for bad in (f'{{coco_panoptic: {wrong}, "*": {right}}}', f'{{coco_instances: {right}, "*": {wrong}}}'):
        with pytest.raises(DataError, match=r"wrong\.json: the classes from 0 on are"):
            opened(*keys(drawn / "train"), f"dataset.label_map={bad}")


def archive_of(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    return info


BAD_ARCHIVES = {
    "a name above": (archive_of(member("../out.jpg")), "would be written outside the folder"),
    "an absolute name": (archive_of(member("/tmp/out.jpg")), "would be written outside the folder"),
    "a link out": (archive_of(member("a.jpg", tarfile.SYMTYPE, "/etc/passwd")), "is a link to '/etc/passwd'"),
    "a device": (archive_of(member("a.jpg", tarfile.CHRTYPE)), "is a device, a pipe or a socket"),
    "nothing": (b"", "damaged, incomplete or not an archive"),
    "half": (archive_of(member("a.jpg", size=100_000))[:100], "damaged, incomplete or not an archive"),
    "a web page": (b"<html>Not Found</html>" * 50, "damaged, incomplete or not an archive"),
    "no image": (archive_of(member("readme.txt")), "the folder contains no images"),
    "a bomb": (archive_of(member("a.jpg", size=3_000_000)), "unpacks to more than"),
}


def fails(tmp_path: Path, location: str, message: str) -> None:
    """Inference on images at `location` ends with 1, the message on the screen and in status.json."""
    (tmp_path / "spec.yaml").write_text(f"results_dir: {tmp_path / 'results'}\n")
    arguments = ["inference", "-e", str(tmp_path / "spec.yaml"), "inference.checkpoint=none"]
    result = CliRunner().invoke(app, [*arguments, f"inference.images_dir={location}"], env={"COLUMNS": "500"})
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    last = json.loads((tmp_path / "results" / "inference" / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "FAILURE"
    assert message in last["message"]


@pytest.mark.parametrize("name", BAD_ARCHIVES)
def test_a_bad_archive_ends_the_run(name: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 2_000_000)
    content, message = BAD_ARCHIVES[name]
    archive = tmp_path / "images.tar.gz"
    archive.write_bytes(content)
    fails(tmp_path, str(archive), message)
    assert archive.read_bytes() == content
    assert not [path for path in cache.iterdir() if path.suffix in (".tmp", ".part")]
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "images.tar.gz", "results", "spec.yaml"}


def test_an_address_that_cannot_be_read_ends_the_run(s3: Bucket, tmp_path: Path) -> None:
    fails(tmp_path, f"{s3.address}/none.tar.gz", f"inference.images_dir: {s3.address}/none.tar.gz: does not exist")
    s3.put("closed.tar.gz", archive_of())
    s3.deny("closed.tar.gz")
    fails(tmp_path, f"{s3.address}/closed.tar.gz", "access is denied (status 403)")


def test_a_full_disk_ends_the_run(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images.zip").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("a.jpg", bytes(100_000))
    free = os.statvfs_result((4096, 4096, 100, 10, 10, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: free)  # where shutil.disk_usage looks
    fails(tmp_path, str(tmp_path / "images.zip"), "No space left on device")
    assert [path.name for path in cache.iterdir() if path.suffix != ".lock"] == []
