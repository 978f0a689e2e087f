"""YOLO: where data.yaml says that pictures are, and lines that are no polygons."""

import os
from pathlib import Path

import numpy as np
import pytest
from drawn_labels import save, written
from importing import imported, opened

from oneformer_jax.data.importers.division import divided
from oneformer_jax.errors import DataError, OneFormerError

IMAGE = np.zeros((40, 80, 3), np.uint8)
SQUARE = "0 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75"


def source_of(folder: Path, description: str, *places: str, line: str = SQUARE) -> Path:
    for number, place in enumerate(places):
        save(folder / place / f"{number}.png", IMAGE)
        labels = folder / place.replace("images", "labels") / f"{number}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text(line)
    (folder / "data.yaml").write_text(description)
    return folder


@pytest.mark.parametrize(
    ("description", "train", "val"),
    [
        ("path: .\ntrain: images/train\nval: images/val\nnames: [cell]", "images/train", "images/val"),
        ("train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['cell']", "train/images", "valid/images"),
        ("path: elsewhere\ntrain: [images/a, images/b]\nval: images/c\nnames: {0: cell}", "images/a", "images/c"),
        ("train: train/images\nval: valid/images\ntest: test/images\nnames: {0: cell}", "train/images", "valid/images"),
    ],
    ids=["ultralytics", "Roboflow", "several folders", "a test that is not there"],
)
def test_places_of_pictures(description: str, train: str, val: str, tmp_path: Path) -> None:
    places = (train, val, "images/b") if "images/b" in description else (train, val)
    reader = opened(source_of(tmp_path / "data", description, *places))
    assert [item.split for item in reader.items if item.image.name == "0.png"] == ["train"]
    assert [item.split for item in reader.items if item.image.name == "1.png"] == ["val"]
    assert len(reader.items) == len(places)
    assert all(item.labels for item in reader.items)


def test_lists_of_pictures(tmp_path: Path) -> None:
    source = source_of(tmp_path / "data", "train: train.txt\nval: val.txt\nnames: [cell]", "images", "images")
    (source / "train.txt").write_text("./images/0.png\n")
    (source / "val.txt").write_text(f"{source}/images/1.png\n")
    assert [(item.name, item.split) for item in opened(source).items] == [("0", "train"), ("1", "val")]


def test_folders_without_a_description(tmp_path: Path) -> None:
    """As Label Studio exports them."""
    source = source_of(tmp_path / "data", "", "images")
    (source / "data.yaml").unlink()
    (source / "classes.txt").write_text("cell\nother\n")
    reader = opened(source)
    assert reader.format == "yolo"
    assert reader.categories.names == ("cell", "other")
    assert [(item.name, item.split, len(item.labels)) for item in reader.items] == [("0", "", 1)]


def test_a_polygon_covers_its_pixels(tmp_path: Path) -> None:
    source = source_of(tmp_path / "data", "train: images\nnames: [cell]", "images")
    imported(source, tmp_path / "out")
    ((category, mask),) = written(tmp_path / "out")[0]["0"].objects
    expected = np.zeros((40, 80), bool)
    expected[10:30, 20:40] = True
    assert category == 0
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("0 0.5 0.5 0.2 0.2", "a box without a mask"),
        ("7 0.1 0.1 0.2 0.2 0.3 0.1", "class 7 is not among the names"),
        ("0.5 0.1 0.1 0.2 0.2 0.3 0.1", "class 0.5 is not among the names"),
        ("0 0.1 0.1 0.2 0.2 0.3", "a polygon of 5 numbers"),
        ("0 10 10 20 20 30 10", "corners of a polygon lie outside 0 to 1"),
        ("cell 1 2", "'cell 1 2' is not a row of numbers"),
        ("0 nan 0.1 0.2 0.2 0.3 0.1", "corners of a polygon lie outside 0 to 1"),
    ],
)
def test_lines_that_are_no_polygon_are_told(line: str, wrong: str, tmp_path: Path) -> None:
    description = "train: images\nnames: [cell]"
    source = source_of(tmp_path / "data", description, "images", line=f"{SQUARE}\n\n{line}\n")
    result = imported(source, tmp_path / "out", format="yolo")
    note = result.counts.notes[0]
    assert note.what.startswith(wrong)
    assert note.where.endswith("0.txt:3")
    assert result.counts.segments.total() == result.counts.sizes.total()


@pytest.mark.parametrize(
    ("description", "wrong"),
    [
        ("train: gone\nval: images\nnames: [cell]", "train: there is no gone"),
        ("train: images\nval: images\nnames: cell", "names must be a list"),
        ("train: images\nval: images\nnames: {a: cell}", "names by whole numbers"),
    ],
)
def test_a_description_that_leads_nowhere_is_refused(description: str, wrong: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=wrong):
        opened(source_of(tmp_path / "data", description, "images"), format="yolo")


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        ("[cell, cell]", "two classes are named 'cell'"),
        ("&n [a, *n]", "no layout of labels that is known"),
    ],
)
def test_names_that_are_none(names: str, wrong: str, tmp_path: Path) -> None:
    """An alias may stand for gigabytes, or for itself."""
    description = f"train: images/train\nval: images/val\nnames: {names}"
    with pytest.raises(OneFormerError, match=wrong):
        opened(source_of(tmp_path / "data", description, "images/train", "images/val"))


def test_a_pipe_is_no_picture(tmp_path: Path) -> None:
    source = source_of(
        tmp_path / "data", "train: images/train\nval: images/val\nnames: [a]", "images/train", "images/val"
    )
    os.mkfifo(source / "images/train/pipe.png")
    assert [item.image.name for item in opened(source).items] == ["0.png", "1.png"]


def test_pictures_of_train_and_of_val_are_divided_anew(tmp_path: Path) -> None:
    description = "train: images/train\nval: images/train\nnames: [a]"
    source = source_of(tmp_path / "data", description, *["images/train"] * 6)
    reader = opened(source)
    assert [item.split for item in reader.items] == [""] * 6
    assert reader.guesses == ["6 pictures are in train and in val: they validate only where they are chosen anew."]
    assert {split: len(found) for split, found in divided(reader.items, 0.34, []).items()} == {"train": 4, "val": 2}
