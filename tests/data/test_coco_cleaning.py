"""Annotation files as CVAT, Label Studio, Roboflow and labelme's converters write them, and as people do."""

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiers import examples

from oneformer_jax.data.datasets.coco_cleaning import whole
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.errors import DataError

HEIGHT, WIDTH = 12, 16
TRIANGLE = [1, 1, 9, 1, 9, 8.5]
Entry = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tools")
    for number in (1, 2):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"{number}.png")
    return folder


def content() -> dict[str, list[Entry]]:
    """As the format says."""
    images = [{"id": n, "file_name": f"{n}.png", "height": HEIGHT, "width": WIDTH} for n in (1, 2)]
    instances = [
        {"id": n, "image_id": 1 + n % 2, "category_id": 3, "iscrowd": 0, "segmentation": [TRIANGLE]} for n in (1, 2, 3)
    ]
    return {
        "images": images,
        "annotations": instances,
        "categories": [{"id": 3, "name": "cat"}, {"id": 0, "name": "x"}],
    }


def opened(folder: Path, lists: dict[str, list[Entry]], **options: Any) -> Dataset:
    path = folder / "annotations.json"
    path.write_text(json.dumps(lists))
    return open_sources([Source(path, folder)], **options)


def notes_of(dataset: Dataset) -> list[str]:
    return [note.what for note in dataset.notes]


# What tools write in place of a value, and how a note calls that.
NUMBERS = {"text": str, "decimal": float}
AS_NUMBER = "with a number that is written as text or with a decimal point: read as the whole number that it is"
PLACES = [("images", "height"), ("images", "width"), ("annotations", "id"), ("annotations", "image_id")]
PLACES += [("annotations", "category_id"), ("annotations", "iscrowd"), ("categories", "id")]


@settings(max_examples=examples(60))
@given(changes=st.dictionaries(st.sampled_from(PLACES), st.sampled_from(sorted(NUMBERS)), min_size=1), data=st.data())
def test_numbers_in_another_form_are_the_same_data(folder: Path, changes: dict, data: st.DataObject) -> None:
    lists = content()
    records, touched = opened(folder, lists).records, 0
    for (part, key), form in changes.items():
        chosen = data.draw(st.sets(st.sampled_from(range(len(lists[part]))), min_size=1))
        touched += len(chosen)
        for number in chosen:
            lists[part][number][key] = NUMBERS[form](lists[part][number][key])
    dataset = opened(folder, lists)
    assert dataset.records == records
    assert [category.id for category in dataset.categories.items] == [3, 0]
    notes = notes_of(dataset)
    assert len(notes) == 1
    assert AS_NUMBER in notes[0]
    assert 1 <= int(notes[0].split()[0]) <= touched


def test_ids_of_images_are_texts_here_and_numbers_there(folder: Path) -> None:
    lists = content()
    for image in lists["images"]:
        image["id"] = str(image["id"])
    assert [record.image_id for record in opened(folder, lists).records] == ["1", "2"]
    lists["images"] += [{**lists["images"][0], "id": 1}]  # what is written as 1 means the number where both are there
    assert [len(record.segments) for record in opened(folder, lists).records] == [0, 2, 1]
    lists["annotations"][0]["image_id"], lists["images"][1]["id"] = 2.0, "02"
    assert [len(record.segments) for record in opened(folder, lists).records] == [0, 2, 1]
    lists["images"] += [{**lists["images"][0], "id": "2"}]
    with pytest.raises(DataError, match="the annotation of image 2 has no entry"):
        opened(folder, lists)


SAME = ["٣", "1_0", " 1", "--1", "1.0", 0.5, 1e300, "9" * 5000, True, None, [1]]


@pytest.mark.parametrize(
    ("value", "number"), [("12", 12), ("-3", -3), ("012", 12), (7.0, 7), (3, 3), *[(value, value) for value in SAME]]
)
def test_what_is_no_whole_number_stays(value: Any, number: Any) -> None:
    assert (type(whole(value)), whole(value)) == (type(number), number)


WITHOUT_MASK = {
    "CVAT: a rectangle": ({"segmentation": [], "bbox": [1, 1, 5, 5], "attributes": {"occluded": False}}, "box"),
    "Roboflow: an empty polygon": ({"segmentation": [[]], "bbox": [1, 1, 5, 5], "area": 25}, "box"),
    "boxes alone": ({"segmentation": ..., "bbox": [1, 1, 5, 5]}, "box"),
    "null": ({"segmentation": None}, "no mask"),
    "run lengths of nothing": ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": []}}, "no mask"),
    "labelme: a line": ({"segmentation": [[1, 1, 9, 9]]}, "points"),
    "a line, unnested": ({"segmentation": [1, 1, 9, 9]}, "points"),
    "a point": ({"segmentation": [[4, 4]]}, "points"),
}
KINDS = {
    "box": "1 entry with a box and without a mask (annotation 2): left out",
    "no mask": "1 entry without a mask (annotation 2): left out",
    "points": "1 entry with a polygon of fewer than three points (annotation 2): left out",
}


@pytest.mark.parametrize("name", WITHOUT_MASK)
def test_what_teaches_nothing_is_left_out_with_a_count_or_refused(folder: Path, name: str) -> None:
    change, kind = WITHOUT_MASK[name]
    lists, expected = content(), content()
    del expected["annotations"][1]
    lists["annotations"][1] |= change
    lists["annotations"][1] = {key: value for key, value in lists["annotations"][1].items() if value is not ...}
    dataset = opened(folder, copy.deepcopy(lists))
    assert dataset.records == opened(folder, expected).records
    assert KINDS[kind] in notes_of(opened(folder, copy.deepcopy(lists)))
    with pytest.raises(DataError) as caught:
        opened(folder, lists, on_bad="refuse")
    assert caught.value.what == KINDS[kind].removesuffix(": left out")
    assert "dataset.on_bad_annotation: drop" in caught.value.hint


def test_parts_of_a_mask_are_left_out_alone(folder: Path) -> None:
    lists = content()
    lists["annotations"][1]["segmentation"] += [[1, 1], [3, 3, 4, 4]]
    dataset = opened(folder, lists)
    assert dataset.records == opened(folder, content()).records
    assert "1 entry with a polygon of fewer than three points (annotation 2): left out" in notes_of(
        opened(folder, lists)
    )


@pytest.mark.parametrize("form", [TRIANGLE, [[1, 1], [9, 1], [9, 8.5]], [[[1, 1], [9, 1], [9, 8.5]]]])
def test_a_polygon_in_another_form_is_the_same_polygon(folder: Path, form: list[Any]) -> None:
    lists = content()
    lists["annotations"][1]["segmentation"] = form
    dataset = opened(folder, lists)
    assert dataset.records == opened(folder, content()).records


@pytest.mark.parametrize("value", [..., None])
def test_without_iscrowd_nothing_is_a_crowd(folder: Path, value: Any) -> None:
    lists = content()
    for entry in lists["annotations"]:
        del entry["iscrowd"]
        if value is None:
            entry["iscrowd"] = None
    assert opened(folder, lists).records == opened(folder, content()).records
    assert notes_of(opened(folder, lists)) == [
        "3 entries without iscrowd: read as 0 (annotation 1, annotation 2, annotation 3)"
    ]


def test_entries_without_ids_are_numbered_beyond_the_others(folder: Path) -> None:
    lists = content()
    del lists["annotations"][0]["id"], lists["annotations"][2]["id"]
    ids = [segment.id for record in opened(folder, lists).records for segment in record.segments]
    assert sorted(ids) == [2, 3, 4]


def test_an_entry_counts_once_for_a_kind(folder: Path) -> None:
    lists = content()
    lists["annotations"][1] |= {"id": "2", "image_id": "1", "category_id": 3.0, "iscrowd": "0"}
    assert notes_of(opened(folder, lists)) == [f"1 entry {AS_NUMBER} (annotation 2)"]


def test_each_kind_is_one_note_with_three_examples(folder: Path) -> None:
    lists = content()
    entry = lists["annotations"][0]
    lists["annotations"] += [{**entry, "id": n, "segmentation": [], "bbox": [0, 0, 1, 1]} for n in range(10, 1010)]
    (note,) = opened(folder, lists).notes
    assert str(note).startswith(
        f"{folder / 'annotations.json'}: 1000 entries with a box and without a mask "
        "(annotation 10, annotation 11, annotation 12, ...): left out\n  -> draw masks or convert the boxes"
    )


def test_segments_of_panoptic_files(
    train: Dataset, drawn: Path, open_split: Callable[..., Dataset], tmp_path: Path
) -> None:
    lists = json.loads((drawn / "train" / "annotations.json").read_text())
    for annotation in lists["annotations"]:
        for info in annotation["segments_info"]:
            del info["iscrowd"]
            info |= {"id": str(info["id"]), "category_id": float(info["category_id"])}
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(lists))
    dataset = open_sources([Source(path, drawn / "train" / "images", drawn / "train" / "panoptic")])
    assert dataset.records == train.records
    assert len(dataset.notes) == 2


@pytest.mark.parametrize("depth", [*range(880, 1000, 7), 100_000])
@pytest.mark.parametrize("place", ["segmentation", "category_id", "iscrowd", "id", "image_id", "bbox"])
def test_deep_nesting_is_refused_or_of_no_interest(folder: Path, place: str, depth: int) -> None:
    path = folder / "deep.json"
    lists = content()
    lists["annotations"][1][place] = "DEEP"
    path.write_text(json.dumps(lists).replace('"DEEP"', "[" * depth + "1" + "]" * depth))
    with contextlib.suppress(DataError) if place in ("segmentation", "bbox") else pytest.raises(DataError):
        open_sources([Source(path, folder)])
