"""What folders hold besides data, and names that are spelled otherwise on the disk."""

import json
import logging
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packs import tarred, zipped
from servers import Bucket
from tiers import examples

from oneformer_jax.data.datasets.coco_file import located
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.images import list_images
from oneformer_jax.data.storage.cache import local_file, local_folder, local_path
from oneformer_jax.data.storage.folders import Spellings, entries, files_below, innermost
from oneformer_jax.errors import DataError

APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(200)
LITTER = [
    ".DS_Store",
    "._0.png",
    "__MACOSX/._0.png",
    "Thumbs.db",
    "desktop.ini",
    ".hidden/0.png",
    ".trash.png",
    "@eaDir/0.png",
]


def litter(folder: Path) -> None:
    for name in LITTER:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(APPLE_DOUBLE)


def test_folders_show_data_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "outer" / "images").mkdir(parents=True)
    (tmp_path / "outer" / "images" / "0.png").touch()
    for folder in (tmp_path, tmp_path / "outer", tmp_path / "outer" / "images"):
        litter(folder)
    assert innermost(tmp_path) == tmp_path / "outer" / "images"
    assert [path.name for path in entries(tmp_path)] == ["outer"]
    assert list_images(tmp_path) == [tmp_path / "outer" / "images" / "0.png"]
    assert located(["0.png"], tmp_path, "image") == [tmp_path / "outer" / "images" / "0.png"]
    assert located([".trash.png"], tmp_path / "outer" / "images", "image"), "something names it"


def test_what_is_left_out_of_the_images_of_a_folder_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "0.png").touch()
    (tmp_path / "notes.txt").touch()
    with caplog.at_level(logging.WARNING):
        assert list_images(tmp_path) == [tmp_path / "0.png"]
    assert not caplog.messages
    for name in ("more", "b.jpg", "c", "d"):
        (tmp_path / name).mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    with caplog.at_level(logging.WARNING):
        assert list_images(tmp_path) == [tmp_path / "0.png"]
    assert caplog.messages == [
        f"{tmp_path}: 4 left out that are subfolders, which are not searched: b.jpg, c, d, ...",
        f"{tmp_path}: 2 left out that are no files, though named like images: gone.png, pipe.png",
    ]


def test_what_is_no_file_below_a_folder_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "inner" / ".hidden").mkdir(parents=True)
    for name in ("inner/a.png", "inner/b.txt", "inner/.hidden/c.png", ".d.png"):
        (tmp_path / name).touch()
    assert list(map(str, files_below(tmp_path, frozenset({".png"})))) == ["inner/a.png"]
    assert caplog.messages == []
    os.mkfifo(tmp_path / "inner" / "pipe.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    assert list(map(str, files_below(tmp_path, frozenset({".png"})))) == ["inner/a.png"]
    (told,) = caplog.messages
    assert "2 left out that cannot be read: gone.png (it is no file), inner/pipe.png (it is no file)" in told
    said: list[DataError] = []
    files_below(tmp_path, frozenset({".png"}), said.append)
    assert [(error.where, error.what) for error in said] == [
        (str(tmp_path / "gone.png"), "it is no file"),
        (str(tmp_path / "inner" / "pipe.png"), "it is no file"),
    ]


def test_one_annotation_file_beside_litter_is_the_one(tmp_path: Path) -> None:
    (tmp_path / "annotations.json").write_text("{}")
    (tmp_path / "._annotations.json").write_bytes(APPLE_DOUBLE)
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "annotations-checkpoint.json").touch()
    assert local_file(str(tmp_path), what="annotations", suffix=".json") == tmp_path / "annotations.json"


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("pack", [tarred, zipped])
def test_archives_and_addresses_hold_no_litter(
    pack: Callable[[dict[str, bytes]], bytes], tmp_path: Path, s3: Bucket
) -> None:
    files = {f"set/{name}": APPLE_DOUBLE for name in LITTER} | {"set/0.png": b"picture"}
    (tmp_path / "set.zip").write_bytes(pack(files))
    for name, content in files.items():
        s3.put(f"photos/{name}", content)
    for location in (str(tmp_path / "set.zip"), f"{s3.address}/photos"):
        folder = local_folder(location, what="images")
        assert [path.name for path in list_images(folder)] == ["0.png"]
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert found == {"set/0.png", "set/.hidden/0.png", "set/.trash.png"}


NFC, NFD = (unicodedata.normalize(form, "Büro/é_한글.png") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("on_disk", "sought"), [(NFC, NFD), (NFD, NFC), (NFC, NFC), (NFD, NFD)])
def test_a_name_in_another_normal_form_is_the_name(tmp_path: Path, on_disk: str, sought: str) -> None:
    (tmp_path / on_disk).parent.mkdir()
    (tmp_path / on_disk).touch()
    assert NFC != NFD
    assert located([sought], tmp_path, "image") == [tmp_path / on_disk]
    assert local_path(str(tmp_path / sought), what="x") == tmp_path / on_disk


def test_an_exact_name_goes_first(tmp_path: Path) -> None:
    for name in (NFC, NFD):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    for name in (NFC, NFD):
        assert Spellings().find(tmp_path / name) == tmp_path / name


@settings(max_examples=examples(30))
@given(st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20))
def test_any_name_is_found_in_any_form(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.mktemp("names")
    if name in (".", ".."):
        return
    (folder / name).touch()
    for form in ("NFC", "NFD"):
        assert Spellings().find(folder / unicodedata.normalize(form, name)) == folder / name
    assert Spellings().find(folder / f"{name}x") is None
    shutil.rmtree(folder)


def test_a_missing_file_is_named_as_it_was_sought(tmp_path: Path) -> None:
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    (tmp_path / "outer" / "inner" / "b.png").touch()
    with pytest.raises(
        DataError, match=f"{tmp_path}/outer/inner/sub/a.png: .* the image sub/a.png, but there is no such"
    ):
        located(["b.png", "sub/a.png"], tmp_path, "image")


def test_a_data_set_of_another_normal_form_is_read(
    broken: Callable[[Callable[[dict[str, Any]], None]], Path], open_split: Callable[..., Dataset]
) -> None:
    names = {}

    def rename(content: dict[str, Any]) -> None:
        for number, image in enumerate(content["images"]):
            names[image["file_name"]] = unicodedata.normalize("NFD", f"ü{number}.png")
            image["file_name"] = unicodedata.normalize("NFC", f"ü{number}.png")

    folder = broken(rename)
    for old, new in names.items():
        (folder / "images" / old).rename(folder / "images" / new)
    litter(folder / "images")
    litter(folder / "panoptic")
    dataset = open_split(folder)
    assert [dataset.read(i)[0].shape[2] for i in range(len(dataset))] == [3] * 4
    assert len(json.loads((folder / "annotations.json").read_text())["images"]) == 4
