"""Lists of classes in the forms that tools write."""

import json
from pathlib import Path

import pytest

from oneformer_jax.data.importers.class_table import TableEntry, find_table, read_table
from oneformer_jax.errors import DataError

ROAD, SKY = (128, 64, 128), (0, 0, 255)
T = TableEntry
TEXTS = {
    "names": ("road\nblue sky\n", [T("road", 0), T("blue sky", 1)]),
    "numbers": ("0: road\n2: blue sky", [T("road", 0), T("blue sky", 2)]),
    "CamVid": ("128 64 128\tRoad\n0 0 255\tBlue_Sky", [T("Road", None, ROAD), T("Blue_Sky", None, SKY)]),
    "CVAT": (
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\nblue sky:0,0,255::",
        [T("background", None, (0, 0, 0)), T("road", None, ROAD), T("blue sky", None, SKY)],
    ),
    "colours in columns": ("name,r,g,b\nroad,128, 64, 128\nsky,0,0,255", [T("road", None, ROAD), T("sky", None, SKY)]),
    "Roboflow": ("Pixel Value, Class\n0, background\n1, road", [T("background", 0), T("road", 1)]),
    "numbers and colours": ("1 road 128 64 128\n2 sky 0 0 255", [T("road", 1, ROAD), T("sky", 2, SKY)]),
}
JSONS = {
    "label map": ([{"id": 7, "name": "road", "isthing": 0, "color": [128, 64, 128]}], [T("road", 7, ROAD, False)]),
    "a list": (["road", "sky"], [T("road", 0), T("sky", 1)]),
    "names by number": ({"0": "road", "3": "sky"}, [T("road", 0), T("sky", 3)]),
    "numbers by name": ({"road": 0, "sky": 3}, [T("road", 0), T("sky", 3)]),
    "colours by name": ({"classes": {"road": [128, 64, 128]}}, [T("road", None, ROAD)]),
}


@pytest.mark.parametrize("form", TEXTS)
def test_text(form: str, tmp_path: Path) -> None:
    text, expected = TEXTS[form]
    (tmp_path / "classes.txt").write_text(text)
    assert list(read_table(tmp_path / "classes.txt").entries) == expected


@pytest.mark.parametrize("form", JSONS)
def test_json(form: str, tmp_path: Path) -> None:
    content, expected = JSONS[form]
    (tmp_path / "classes.json").write_text(json.dumps(content))
    assert list(read_table(tmp_path / "classes.json").entries) == expected


def test_void_is_no_class(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("unlabeled\nroad\n")
    table = read_table(tmp_path / "labels.txt")
    assert (list(table.entries), list(table.void)) == ([TableEntry("road", 1)], [TableEntry("unlabeled", 0)])


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "lists no class"),
        ("a,1,2,3\nb,1,2,3", r"'a', 'b' have the same color, \(1, 2, 3\)"),
        ("1: a\n1: b", "'a', 'b' have the same id, 1"),
        ("a\nb\na", "'a', 'a' have the same name, a"),
        ("a,1,2,300", r"line 1: a colour has values up to 255"),
        ("a\n1,2,3", "line 2 names no class"),
    ],
)
def test_what_is_no_list_is_refused(text: str, wrong: str, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=wrong):
        read_table(tmp_path / "classes.txt")


def test_the_first_file_of_a_known_name_is_found(tmp_path: Path) -> None:
    assert find_table([tmp_path]) is None
    (tmp_path / "classes.txt").touch()
    assert find_table([tmp_path / "masks", tmp_path]) == tmp_path / "classes.txt"
