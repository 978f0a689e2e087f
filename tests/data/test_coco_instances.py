import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from oneformer_jax.data.batch import segment_targets
from oneformer_jax.data.datasets import dataset as dataset_module
from oneformer_jax.data.datasets.coco_instances import compress, mask_planes, run_lengths
from oneformer_jax.data.datasets.dataset import VOID, Dataset, front
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.errors import DataError

HEIGHT, WIDTH = 20, 30
CATEGORIES = [{"id": 4, "name": "cat"}, {"id": 9, "name": "sky"}, {"id": 6, "name": "dog"}]


def box(number: int, category: int, x: int, y: int, w: int, h: int, **more: Any) -> dict[str, Any]:
    """The annotation of a rectangle; iscrowd 0, image 1 unless `more` says otherwise."""
    outline = [x, y, x + w, y, x + w, y + h, x, y + h]
    return {"id": number, "image_id": 1, "category_id": category, "iscrowd": 0, "segmentation": [outline], **more}


def crowd(number: int, category: int, mask: np.ndarray) -> dict[str, Any]:
    """A crowd with uncompressed run lengths."""
    flat = np.concatenate([[False], mask.T.ravel(), [not mask.T.ravel()[-1]]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], edges])).tolist()
    segmentation = {"size": list(mask.shape), "counts": counts}
    return {"id": number, "image_id": 1, "category_id": category, "iscrowd": 1, "segmentation": segmentation}


def write(folder: Path, annotations: list[dict[str, Any]], images: int = 1, **changes: Any) -> Path:
    """`instances.json` and its pictures, numbered from 1."""
    entries = []
    for number in range(1, images + 1):
        Image.new("RGB", (WIDTH, HEIGHT), (number, 0, 0)).save(folder / f"{number}.png")
        entries.append({"id": number, "file_name": f"{number}.png", "height": HEIGHT, "width": WIDTH})
    content = {"images": entries, "annotations": annotations, "categories": CATEGORIES, **changes}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "instances.json"


def opened(path: Path, **options: Any) -> Dataset:
    return open_sources([Source(path, path.parent)], **options)


boxes = st.lists(
    st.tuples(
        st.integers(0, WIDTH - 4), st.integers(0, HEIGHT - 4), st.integers(1, 15), st.integers(1, 12), st.booleans()
    ),
    max_size=12,
)


@given(boxes)
def test_every_mask_comes_back_from_the_planes(tmp_path_factory: pytest.TempPathFactory, shapes: list) -> None:
    annotations = [
        box(number, CATEGORIES[number % 3]["id"], x, y, min(w, WIDTH - x), min(h, HEIGHT - y), iscrowd=int(is_crowd))
        for number, (x, y, w, h, is_crowd) in enumerate(shapes, start=1)
    ] or [box(1, 4, 0, 0, 3, 3)]
    path = write(tmp_path_factory.mktemp("boxes"), annotations)
    dataset = opened(path)
    record, planes = dataset.records[0], dataset.read_segments(0)
    coco = COCO()
    coco.dataset = json.loads(path.read_text())
    coco.createIndex()
    for position, segment in enumerate(record.segments):
        mask = (planes == position).any(axis=0)
        np.testing.assert_array_equal(mask, coco.annToMask(coco.anns[segment.id]).astype(bool))
        assert (planes == position).any(axis=(1, 2)).sum() == mask.any(), "a segment lies in one plane"
    counted = [position for position, segment in enumerate(record.segments) if not segment.iscrowd]
    assert not np.isin(planes[dataset.planes :], counted).any()


def test_segments_stand_from_front_to_back_and_crowds_last(tmp_path: Path) -> None:
    everything = np.ones((HEIGHT, WIDTH), bool)
    annotations = [crowd(1, 4, everything), box(2, 4, 0, 0, 20, 10), box(3, 6, 5, 5, 4, 4), box(4, 4, 25, 0, 5, 5)]
    dataset = opened(write(tmp_path, annotations))
    assert [segment.id for segment in dataset.records[0].segments] == [3, 4, 2, 1]
    planes = dataset.read_segments(0)
    assert (len(planes), dataset.planes) == (3, 2), "a plane that holds nothing but a crowd is not counted"
    seen = front(planes)
    assert (seen[6, 6], seen[1, 1], seen[0, 26], seen[19, 29]) == (0, 2, 1, 3)


def test_targets_of_overlapping_masks(tmp_path: Path) -> None:
    annotations = [box(1, 4, 0, 0, 10, 10), box(2, 4, 5, 5, 10, 10), box(3, 6, 8, 8, 4, 4), box(4, 9, 0, 15, 30, 5)]
    label_map = [{**category, "isthing": int(category["name"] != "sky")} for category in CATEGORIES]
    (tmp_path / "label_map.json").write_text(json.dumps(label_map))
    dataset = opened(write(tmp_path, annotations), label_maps={"*": tmp_path / "label_map.json"})
    assert dataset.categories.is_thing.tolist() == [True, False, True]
    assert dataset.planes == 3

    def masks(task: str) -> list[tuple[int, np.ndarray]]:
        record, is_thing = dataset.records[0], dataset.categories.is_thing
        targets = segment_targets(dataset.read_segments(0), record.segments, task, is_thing, 8, num_planes=4)
        assert targets.index.shape == (4, HEIGHT, WIDTH)
        rows = range(targets.count)
        return [(int(targets.classes[t]), targets.index[targets.planes[t]] == t) for t in rows]

    cats = np.zeros((2, HEIGHT, WIDTH), bool)
    cats[0, :10, :10] = cats[1, 5:15, 5:15] = True
    dog, sky = np.zeros((2, HEIGHT, WIDTH), bool)
    dog[8:12, 8:12] = sky[15:, :] = True
    behind_dog, whole = cats & ~dog, {(0, cats[0].tobytes()), (0, cats[1].tobytes()), (2, dog.tobytes())}
    assert {(c, mask.tobytes()) for c, mask in masks("instance")} == whole, "the instance task sees whole masks"
    semantic = dict(masks("semantic"))
    np.testing.assert_array_equal(semantic[0], behind_dog.any(axis=0))
    np.testing.assert_array_equal(semantic[1], sky)
    np.testing.assert_array_equal(semantic[2], dog)
    panoptic = masks("panoptic")
    assert [c for c, _ in panoptic] == [0, 0, 1, 2]
    assert sum(mask.astype(int) for _, mask in panoptic).max() == 1, "one segment a pixel"
    np.testing.assert_array_equal(panoptic[0][1] | panoptic[1][1], behind_dog.any(axis=0))


def test_too_few_planes_are_a_defect(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path, [box(1, 4, 0, 0, 9, 9), box(2, 4, 2, 2, 9, 9)]))
    with pytest.raises(ValueError, match="need more than 1 planes"):
        segment_targets(dataset.read_segments(0), dataset.records[0].segments, "instance", np.ones(3, bool), 8)


def test_images_without_annotations_belong_to_the_data_set(tmp_path: Path) -> None:
    dataset = opened(write(tmp_path, [box(1, 4, 0, 0, 9, 9, image_id=2)], images=3))
    assert [len(record.segments) for record in dataset.records] == [0, 1, 0]
    assert dataset.read_segments(0).tolist() == np.full((1, HEIGHT, WIDTH), VOID).tolist()
    assert dataset.planes == 1
    assert dataset.records[1].files == (tmp_path / "2.png",)


def test_everything_is_a_thing_unless_a_file_says_otherwise(tmp_path: Path) -> None:
    path = write(tmp_path, [box(1, 4, 0, 0, 9, 9)])
    assert opened(path).categories.is_thing.all()
    label_map = [{**category, "isthing": 0} for category in CATEGORIES]
    (tmp_path / "label_map.json").write_text(json.dumps(label_map))
    stated = [CATEGORIES[0] | {"isthing": 1}, *CATEGORIES[1:]]
    path = write(tmp_path, [box(1, 4, 0, 0, 9, 9)], categories=stated)
    dataset = opened(path, label_maps={"coco_instances": tmp_path / "label_map.json"})
    assert dataset.categories.is_thing.tolist() == [False, False, False], "the label map goes before the file"
    assert len(dataset.warnings) == 1, "which it contradicts in one class, and says what the others are"
    assert f"'{CATEGORIES[0]['name']}' is stuff, which counts: the annotations say a thing" in dataset.warnings[0]
    other = opened(path, label_maps={"coco_panoptic": tmp_path / "label_map.json"})
    assert other.categories.is_thing.all()


def test_a_mask_without_pixels_stays_listed(tmp_path: Path) -> None:
    thin = box(1, 4, 3, 3, 0, 0)
    dataset = opened(write(tmp_path, [thin, box(2, 4, 0, 0, 9, 9)]))
    assert [segment.id for segment in dataset.records[0].segments] == [1, 2]
    assert set(np.unique(dataset.read_segments(0))) == {VOID, 1}


def test_hundreds_of_masks_over_each_other_are_refused(tmp_path: Path) -> None:
    """Each would need a plane of its own: a small file would fill the memory."""
    size = (HEIGHT, WIDTH)
    mask = compress([[0, 0, 9, 0, 9, 9, 0, 9]], size)
    assert len(mask_planes(run_lengths([mask] * 256, size), size)) == 256
    with pytest.raises(DataError, match="more than 256 masks of one image lie over each other"):
        mask_planes(run_lengths([mask] * 257, size), size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 5}, "annotation of image 5 has no entry in 'images'"),
        ({"image_id": [1]}, "id of an image must be a number or a string"),
        ({"id": 2}, "annotation id 2 appears twice"),
        ({"id": "one"}, "id of an annotation must be an integer of 64 bits, not one"),
        ({"id": 1 << 63}, "id of an annotation must be an integer of 64 bits, not 9223372036854775808"),
        ({"category_id": 5}, "annotation 1: category_id 5 .* not among the categories"),
        ({"category_id": "four"}, "category_id four of segment 1 is not among the categories"),
        ({"iscrowd": 2}, "annotation 1: iscrowd must be 0 or 1"),
        ({"segmentation": [[0, 0, 1, 1, 2, 2, 3]]}, "annotation 1: a polygon must be"),
        ({"segmentation": [[0, 0, 25, 19] * 100_000]}, "outline of a polygon is 5000000 pixels long, at most"),
        ({"segments_info": []}, "annotation 0 has both 'segments_info'"),
    ],
)
def test_unusable_annotations_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = write(tmp_path, [box(1, 4, 0, 0, 9, 9, **change), box(2, 4, 2, 2, 9, 9)])
    with pytest.raises(DataError, match=message) as caught:
        opened(path)
    assert str(path) in str(caught.value)


def test_missing_keys_and_several_problems_at_once(tmp_path: Path) -> None:
    incomplete = box(1, 4, 0, 0, 9, 9)
    del incomplete["category_id"]
    path = write(tmp_path, [incomplete, box(2, 5, 2, 2, 9, 9), box(3, 4, 2, 2, 9, 9)])
    with pytest.raises(
        DataError, match=r"2 problems(.|\n)*annotation 1: the key 'category_id'(.|\n)*annotation 2: category"
    ):
        opened(path)
    no_masks = {key: value for key, value in box(1, 4, 0, 0, 9, 9).items() if key != "segmentation"}
    with pytest.raises(DataError, match="annotation 0 has neither 'segments_info'"):
        opened(write(tmp_path, [no_masks]))
    panoptic = {"image_id": 1, "file_name": "1.png", "segments_info": []}
    with pytest.raises(DataError, match=r"annotation 0 is an instance .*, annotation 1 panoptic"):
        opened(write(tmp_path, [box(1, 4, 0, 0, 9, 9), panoptic]))


def test_more_segments_than_can_be_told_apart_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, [box(number, 1, 0, 0, 2, 2) for number in range(10)])
    monkeypatch.setattr(dataset_module, "MAX_SEGMENTS", 9)
    with pytest.raises(DataError, match="10 segments in one image, at most 9"):
        opened(path)
