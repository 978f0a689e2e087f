"""Which files a person means who names pictures on a command line."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneformer_jax.data.datasets.images import SUFFIXES
from oneformer_jax.data.pictures import find_pictures
from oneformer_jax.errors import DataError

FILES = (
    *("a.png", "b.JPG", "notes.txt", ".hidden.png", "._b.JPG", "odd[1].png", "odd1.png"),
    *("deep/c.tif", "deep/a.png", "deep/deeper/d.webp", "deep/.git/e.png", "deep/notes.md"),
    *("empty/notes.txt", "x y/é.png"),
)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONEFORMER_CACHE_DIR", str(tmp_path / ".cache"))
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["a.png"], ["a.png"]),
        (["notes.txt"], ["notes.txt"]),  # who names a file means it: reading it says what is wrong
        (["b.JPG", "a.png", "b.JPG"], ["b.JPG", "a.png"]),
        (["deep"], ["deep/a.png", "deep/c.tif", "deep/deeper/d.webp"]),
        (["deep/c.tif", "deep"], ["deep/c.tif", "deep/a.png", "deep/deeper/d.webp"]),
        (["deep/../deep/c.tif", "./deep/c.tif"], ["deep/../deep/c.tif"]),
        (["*.png"], ["a.png", "odd1.png", "odd[1].png"]),
        (["odd[1].png"], ["odd[1].png"]),  # a file of that name, not the pattern
        (["o?d1.png"], ["odd1.png"]),
        (["deep/*"], ["deep/a.png", "deep/c.tif", "deep/deeper/d.webp"]),
        (["**/*.png"], ["a.png", "deep/a.png", "odd1.png", "odd[1].png", "x y/é.png"]),
        (["x y/e\u0301.png"], ["x y/é.png"]),  # as macOS spells it
    ],
)
def test_what_a_source_names(tree: Path, sources: list[str], expected: list[str]) -> None:
    assert find_pictures(sources) == [Path(name) for name in expected]
    absolute = find_pictures([os.path.join(tree, source) for source in sources])
    assert absolute == [tree / name for name in expected]


def test_an_archive_is_a_folder(tree: Path) -> None:
    archive = shutil.make_archive(str(tree / "pack"), "zip", tree / "deep")
    found = find_pictures([archive])
    assert [(path.name, path.read_bytes()) for path in found] == [
        ("a.png", b"deep/a.png"),
        ("c.tif", b"deep/c.tif"),
        ("d.webp", b"deep/deeper/d.webp"),
    ]


def test_the_file_at_an_address(tree: Path) -> None:
    (found,) = find_pictures([f"file://{tree}/a.png"])
    assert found.name == "a.png"
    assert found.read_bytes() == b"a.png"


def test_links_to_folders_are_followed_and_their_files_are_the_same(tree: Path) -> None:
    (tree / "link").symlink_to("deep")
    (tree / "deep" / "back").symlink_to(tree / "deep")
    assert find_pictures(["link", "deep"]) == [Path("link", name) for name in ("a.png", "c.tif", "deeper/d.webp")]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("missing.png", "SOURCE: missing.png: no such file or folder"),
        ("missing/*.png", r"SOURCE: missing/\*.png: no picture fits this pattern\n  -> pictures are files .bmp"),
        ("*.txt", "no picture fits this pattern; 1 others fit, such as notes.txt"),
        ("empty", "SOURCE: empty: the folder contains no pictures, at no depth"),
        ("", "SOURCE: an empty text"),
    ],
)
def test_a_source_of_no_picture_is_refused(tree: Path, source: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        find_pictures(["a.png", source])


def test_all_wrong_sources_are_told_at_once(tree: Path) -> None:
    with pytest.raises(DataError) as caught:
        find_pictures(["missing.png", "a.png", "empty"])
    assert "missing.png" in str(caught.value)
    assert "empty" in str(caught.value)


NAMES = st.sampled_from(["a", "b", ".c", "d.png", "e.JPEG", "f.txt", ".g.png", "._h.png", "Thumbs.db"])
FOLDERS = st.lists(st.sampled_from(["p", "q", ".r", "__MACOSX"]), max_size=3)


@settings(max_examples=40)
@given(st.lists(st.tuples(FOLDERS, NAMES), max_size=12))
def test_a_folder_is_searched_as_a_loop_would(tmp_path_factory: pytest.TempPathFactory, entries: list) -> None:
    root = tmp_path_factory.mktemp("root")
    expected = set()
    for folders, name in entries:
        path = root.joinpath(*folders, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in (*folders, name))
        if os.path.splitext(name)[1].lower() in SUFFIXES and not hidden:
            expected.add(path)
    if not expected:
        with pytest.raises(DataError, match="contains no pictures"):
            find_pictures([str(root)])
    else:
        assert find_pictures([str(root)]) == sorted(expected)
