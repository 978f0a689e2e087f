"""labelme: shapes of every kind, groups, and pictures that were labelled elsewhere."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_labels import save, written
from importing import Result, imported

SQUARE = [[20, 10], [40, 10], [40, 30], [20, 30]]


def shape(points: list[list[float]], kind: str = "polygon", label: str = "cell", group: int | None = None) -> dict:
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}}


def read(tmp_path: Path, *shapes: Any, image: str = "a.png", **others: Any) -> Result:
    save(tmp_path / "source" / "a.png", np.zeros((40, 80, 3), np.uint8))
    content = {"version": "5", "shapes": list(shapes), "imagePath": image, "imageHeight": 40, "imageWidth": 80}
    (tmp_path / "source" / "a.json").write_text(json.dumps(content | others))
    return imported(tmp_path / "source", tmp_path / "out")


def masks(tmp_path: Path) -> list[np.ndarray]:
    return [mask for _, mask in written(tmp_path / "out")[0]["a"].objects]


@pytest.mark.parametrize(
    ("kind", "points"), [("polygon", SQUARE), ("rectangle", [[40, 30], [20, 10]]), ("rectangle", SQUARE)]
)
def test_a_square(kind: str, points: list[list[float]], tmp_path: Path) -> None:
    read(tmp_path, shape(points, kind))
    expected = np.zeros((40, 80), bool)
    expected[10:30, 20:40] = True
    np.testing.assert_array_equal(masks(tmp_path)[0], expected)


def test_a_circle(tmp_path: Path) -> None:
    read(tmp_path, shape([[40, 20], [50, 20]], "circle"))
    assert masks(tmp_path)[0].sum() == pytest.approx(np.pi * 100, rel=0.02)


def test_shapes_of_a_group_and_label_are_one_object(tmp_path: Path) -> None:
    left, right = [[0, 0], [10, 0], [10, 10]], [[70, 0], [80, 0], [80, 10]]
    read(tmp_path, shape(left, group=3), shape(right, group=3), shape(left, label="other", group=3), shape(right))
    found = sorted(int(mask.sum()) for mask in masks(tmp_path))
    assert len(found) == 3
    assert found[2] == pytest.approx(2 * found[0], rel=0.2)


def test_shapes_without_an_area_are_told_and_void_is_left_out(tmp_path: Path) -> None:
    result = read(
        tmp_path,
        shape(SQUARE),
        shape(SQUARE, label="__ignore__"),
        shape([[1, 1], [9, 9]], "line"),
        shape([[1, 1]], "point"),
        shape([[1, 1], [9, 9]]),
        {"label": "cell"},
        7,
    )
    assert [note.what.split(":")[0][:40] for note in result.counts.notes] == [
        "a line has no area",
        "a point has no area",
        "a polygon must be a list of three or mor",
        "it is not as labelme writes shapes",
        "it is not as labelme writes shapes",
    ]
    assert len(masks(tmp_path)) == 1


@pytest.mark.parametrize("image", ["C:\\Users\\me\\a.png", "..\\pictures\\a.png", "renamed.png", "a.png"])
def test_pictures_are_found_where_the_files_lie_now(image: str, tmp_path: Path) -> None:
    assert not read(tmp_path, shape(SQUARE), image=image).reader.left_out
    assert len(masks(tmp_path)) == 1


def test_the_order_of_labels_txt_counts(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "labels.txt").write_text("__ignore__\n_background_\nz\ncell\n")
    result = read(tmp_path, shape(SQUARE))
    assert result.reader.categories.names == ("z", "cell")
