import json
from pathlib import Path

import numpy as np
import pytest

from oneformer_jax.data.datasets.categories import Categories, check_agreement, load_label_map
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
    check_agreement(ours, load_label_map(path))
    path.write_text(json.dumps(TWO[::-1]))
    with pytest.raises(DataError, match="class 0 is 2 'sky' in the label map but 7 'cat'"):
        check_agreement(ours, load_label_map(path))
    with pytest.raises(DataError, match="has 1 categories, the annotations have 2"):
        check_agreement(ours, Categories.from_json(TWO[:1]))


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
