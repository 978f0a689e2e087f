"""A whole data set at one place, entered by the names of its files."""

from pathlib import Path

import pytest
from packs import entries, tarred, zipped
from servers import Bucket, Web

from oneformer_jax.data.datasets.dataset_root import DatasetRoot, open_root
from oneformer_jax.errors import DataError

pytestmark = pytest.mark.usefixtures("cache")
KNOWN = ("images.tar.gz", "images_panoptic.tar.gz", "annotations.json")


def opened(location: object) -> DatasetRoot:
    return open_root(str(location), known=KNOWN, what="--train-dataset")


@pytest.mark.parametrize(
    ("there", "name", "found"),
    [
        (["images.tar.gz", "images.zip", "images/"], "images.tar.gz", "images.tar.gz"),
        (["images.zip", "images/"], "images.tar.gz", "images.zip"),
        (["images/", "annotations.json"], "images.tar.gz", "images"),
        (["images_panoptic/", "panoptic/"], "images_panoptic.tar.gz", "images_panoptic"),
        (["panoptic/"], "images_panoptic.tar.gz", "panoptic"),
        (["annotations.json"], "annotations.json", "annotations.json"),
        (["annotations.zip", "annotations"], "annotations.json", None),
        (["images_panoptic.tar.gz"], "images.tar.gz", None),
    ],
)
def test_a_file_in_a_folder(there: list[str], name: str, found: str | None, tmp_path: Path) -> None:
    for entry in there:
        (tmp_path / entry).mkdir() if entry.endswith("/") else (tmp_path / entry).touch()
    assert opened(tmp_path).find(name) == (found and str(tmp_path / found))


@pytest.mark.parametrize("pack", [tarred, zipped])
def test_an_archive_of_a_whole_data_set_is_unpacked_once(pack, tmp_path: Path, cache: Path) -> None:
    files = {"set/images/a.jpg": b"a", "set/images_panoptic/a.png": b"b", "set/annotations.json": b"{}"}
    (tmp_path / "set.zip").write_bytes(pack(files))
    root = opened(tmp_path / "set.zip")
    for name, inside in (("images.tar.gz", "a.jpg"), ("images_panoptic.tar.gz", "a.png")):
        assert [path.name for path in Path(str(root.find(name))).iterdir()] == [inside]
    assert Path(str(root.find("annotations.json"))).read_bytes() == b"{}"
    assert opened(tmp_path / "set.zip") == root
    assert len(entries(cache)) == 1


def test_a_folder_with_nothing_but_images_is_no_wrapper(tmp_path: Path) -> None:
    (tmp_path / "outer" / "images").mkdir(parents=True)
    assert opened(tmp_path).find("images.tar.gz") == str(tmp_path / "outer" / "images")
    assert opened(tmp_path / "outer").find("images.tar.gz") == str(tmp_path / "outer" / "images")


@pytest.mark.parametrize(
    ("names", "holds"), [(["a.JPG", "b.txt"], True), (["images.zip", "a.json"], False), ([], False)]
)
def test_a_folder_of_images(names: list[str], holds: bool, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert opened(tmp_path).holds_images() == holds


def test_at_an_s3_address_nothing_is_fetched(s3: Bucket, cache: Path) -> None:
    s3.put("set/images.tar.gz", b"1")
    s3.put("set/panoptic/a.png", b"1")
    s3.put("set/annotations.json", b"{}")
    for slash in ("", "/"):
        root = opened(f"{s3.address}/set{slash}")
        assert root.find("images.tar.gz") == f"{s3.address}/set/images.tar.gz"
        assert root.find("images_panoptic.tar.gz") == f"{s3.address}/set/panoptic"
        assert root.find("label_map.json") is None
        assert root.described() == "which holds annotations.json, images.tar.gz, panoptic"
    assert entries(cache) == []


def test_an_archive_at_an_address_is_fetched_and_unpacked(s3: Bucket, cache: Path) -> None:
    root = opened(s3.put("set.tar.gz", tarred({"images/a.jpg": b"a", "annotations.json": b"{}"})))
    assert Path(str(root.find("annotations.json"))).is_relative_to(cache)


def test_a_web_server_is_asked_for_each_file(web: Web) -> None:
    web.put("set/images.zip", b"1")
    root = opened(f"{web.address}/set")
    assert root.find("images.tar.gz") == f"{web.address}/set/images.zip"
    assert root.find("annotations.json") is None
    web.status = 503
    with pytest.raises(DataError, match=r"/set/annotations\.json: the server answered with status 503"):
        root.find("annotations.json")


def test_what_is_no_root(tmp_path: Path, s3: Bucket) -> None:
    (tmp_path / "annotations.json").touch()
    with pytest.raises(
        DataError, match=r"--train-dataset: .*annotations\.json: this is a file, not the root of a data"
    ):
        opened(tmp_path / "annotations.json")
    with pytest.raises(DataError, match=r"--train-dataset: nowhere: no such file or folder"):
        opened("nowhere")
    with pytest.raises(DataError, match=r"--train-dataset: s3://bucket/nowhere: does not exist"):
        opened(f"{s3.address}/nowhere")
