import json
import re
from pathlib import Path

import numpy as np
import pytest

from oneformer_jax.data.datasets.categories import (
    Categories,
    Category,
    check_agreement,
    disagreements,
    load_label_map,
    with_label_map,
)
from oneformer_jax.errors import DataError

TWO = [{"id": 7, "name": "cat", "isthing": 1, "color": [1, 2, 3]}, {"id": 2, "name": "sky", "isthing": 0}]


def test_class_index_is_the_position_in_the_list() -> None:
    categories = Categories.from_json(TWO)
    assert categories.names == ("cat", "sky")
    assert categories.index_of == {7: 0, 2: 1}
    np.testing.assert_array_equal(categories.is_thing, [True, False])
    assert categories.colors[0].tolist() == [1, 2, 3]
    assert Categories.from_json(categories.to_json()) == categories


def test_missing_isthing_is_a_thing_and_missing_colours_are_generated_alike_each_time() -> None:
    entries = [{"id": i, "name": str(i)} for i in range(150)]
    categories = Categories.from_json(entries)
    assert categories.is_thing.all()
    assert categories == Categories.from_json(entries)
    assert len({tuple(color) for color in categories.colors.tolist()}) > 140


@pytest.mark.tao(23)
def test_raw_ids_as_class_indices() -> None:
    entries = [{"id": 1, "name": "b"}, {"id": 0, "name": "a"}]
    categories = Categories.from_json(entries, contiguous_id=False)
    assert categories.names == ("a", "b")
    assert categories.index_of == {0: 0, 1: 1}
    with pytest.raises(DataError, match=r"must be 0..1, but they run from 2 to 7"):
        Categories.from_json(TWO, contiguous_id=False)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "JSON array"),
        ([], "empty"),
        ([{"id": 1}], "'name' is missing"),
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "id 1 appears twice"),
        ([{"id": "1", "name": "a"}], "must be an integer"),
        ([{"id": 1, "name": "a", "isthing": 2}], "isthing must be 0 or 1"),
        ([{"id": 1, "name": "a", "color": [0, 0, 256]}], "three integers"),
        ([{"id": 1, "name": "a", "color": "red"}], "three integers"),
        ([3], "JSON object"),
    ],
)
def test_unusable_lists_are_refused(entries: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Categories.from_json(entries)


def test_annotations_must_say_what_is_a_thing() -> None:
    with pytest.raises(DataError, match="'isthing' is missing"):
        Categories.from_json([{"id": 1, "name": "a"}], isthing_required=True)


def test_label_map_must_agree(tmp_path: Path) -> None:
    ours = Categories.from_json(TWO)
    path = tmp_path / "label_map.json"
    path.write_text(json.dumps(TWO))
    assert with_label_map(ours, path, stated={7, 2}) == (ours, ())
    path.write_text(json.dumps(TWO[::-1]))
    with pytest.raises(DataError, match=r"from 0 on are 'sky', 'cat' in the label map, but 'cat', 'sky' in the ann"):
        with_label_map(ours, path, stated=())
    path.write_text(json.dumps(TWO[:1]))
    with pytest.raises(DataError, match=r"1 classes in the label map, 2 in .*: class 1 is missing .* but 'sky' in the"):
        with_label_map(ours, path, stated=())
    path.write_text(json.dumps([TWO[0] | {"id": 8}, TWO[1]]))
    with pytest.raises(DataError, match=r"'cat' has the id 8 in the label map, but 7 in the annotations"):
        with_label_map(ours, path, stated=())


def test_what_a_label_map_says_of_colours_and_things_counts(tmp_path: Path) -> None:
    ours, path = Categories.from_json(TWO), tmp_path / "label_map.json"
    other = {"isthing": int(not ours.items[0].isthing), "color": [9, 8, 7]}
    path.write_text(json.dumps([{"id": 7, "name": "cat", **other}, {"id": 2, "name": "sky"}]))
    found, warnings = with_label_map(ours, path, stated={7, 2})
    assert found.items == (Category(7, "cat", bool(other["isthing"]), (9, 8, 7)), ours.items[1])
    assert [("'cat' is stuff, which counts: the annotations say a thing" in text) for text in warnings] == [True]
    assert with_label_map(ours, path, stated={2}) == (found, ())


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (TWO, {}),
        (TWO[::-1], {"order": "the classes from 0 on are 'sky', 'cat' in B, but 'cat', 'sky' in A"}),
        ([TWO[0], {"id": 2, "name": "sea"}], {"classes": "class 1 is 'sea' in B, but 'sky' in A"}),
        (
            [TWO[0] | {"id": 1, "isthing": 0, "color": [0, 0, 0]}, TWO[1]],
            {
                "ids": "'cat' has the id 1 in B, but 7 in A",
                "things": "'cat' is stuff in B, but a thing in A",
                "colours": "'cat' has the colour (0, 0, 0) in B, but (1, 2, 3) in A",
            },
        ),
    ],
)
def test_one_comparison_names_what_differs_and_both_values(second: list, expected: dict[str, str]) -> None:
    sides = (Categories.from_json(TWO), "A"), (Categories.from_json(second), "B")
    assert disagreements(*sides) == expected
    for aspect, text in expected.items():
        with pytest.raises(DataError, match=re.escape(text)):
            check_agreement(*sides, aspect)


def test_all_that_differ_are_named() -> None:
    three = [{"id": i, "name": name, "color": [i, 0, 0]} for i, name in enumerate("abc", 1)]
    things, stuff = (Categories.from_json([item | {"isthing": flag} for item in three]) for flag in (1, 0))
    assert disagreements((things, "A"), (stuff, "B")) == {
        "things": "'a' is stuff in B, but a thing in A; the two differ in 2 others too: 'b', 'c'"
    }


def test_label_map_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        load_label_map(tmp_path / "none.json")
    with pytest.raises(DataError, match="folder"):
        load_label_map(tmp_path)
    (tmp_path / "bad.json").write_text("[1,")
    with pytest.raises(DataError, match="not valid JSON"):
        load_label_map(tmp_path / "bad.json")


def test_label_map_of_coco(shared: Path) -> None:
    categories = load_label_map(shared / "data" / "coco_panoptic_sample" / "label_map.json")
    assert len(categories) == 133
    assert categories.is_thing.sum() == 80
    assert categories.items[0].color == (220, 20, 60)
