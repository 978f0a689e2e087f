import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneformer_jax.data import batch as batch_module
from oneformer_jax.data.augmentation import AugmentationSettings
from oneformer_jax.data.batch import SegmentTargets, segment_targets
from oneformer_jax.data.datasets import dataset as dataset_module
from oneformer_jax.data.datasets.coco_panoptic import segment_rows
from oneformer_jax.data.datasets.dataset import MAX_SEGMENTS, VOID, Dataset, Segment
from oneformer_jax.data.pipeline import PipelineSettings
from oneformer_jax.data.task_text import prompt_rows
from oneformer_jax.errors import DataError
from oneformer_jax.tasks import TASKS, Task

IS_THING = np.array([True, False, True, False])


def dense(targets: SegmentTargets) -> list[tuple[int, list[int]]]:
    """(class, pixels) of every row, as the contract of `Batch` defines them."""
    result = []
    for t in range(targets.count):
        mask = targets.index[targets.planes[t]] == t
        result.append((int(targets.classes[t]), np.flatnonzero(mask).tolist()))
    return result


segment_lists = st.lists(
    st.builds(Segment, id=st.integers(1, (1 << 24) - 1), category=st.integers(0, 3), iscrowd=st.booleans()),
    max_size=8,
    unique_by=lambda segment: segment.id,
)


@given(segment_lists, st.sampled_from(TASKS), st.integers(0, 1000))
def test_targets_equal_masks_built_one_by_one(segments: list[Segment], task: Task, seed: int) -> None:
    ids = np.random.default_rng(seed).choice([0, *(s.id for s in segments)], (5, 6)).astype(np.int32)
    expected: dict[object, tuple[int, set[int]]] = {}
    for segment in segments:
        pixels = set(np.flatnonzero(ids == segment.id).tolist())
        if segment.iscrowd or not pixels or (task == "instance" and not IS_THING[segment.category]):
            continue
        key = segment.category if task == "semantic" else segment
        expected.setdefault(key, (segment.category, set()))[1].update(pixels)
    targets = segment_targets(segment_rows(ids, segments)[None], segments, task, IS_THING, 16, num_planes=2)
    assert sorted(dense(targets)) == sorted(((c, sorted(p)) for c, p in expected.values()))
    assert targets.index.shape == (2, 5, 6)
    assert (targets.index[1] == VOID).all()
    assert (targets.classes[targets.count :] == -1).all()
    assert (np.diff(targets.classes[: targets.count]) >= 0).all()


def test_ids_that_the_annotations_do_not_list_are_refused() -> None:
    ids = np.array([[0, 5], [5, 9]], np.int32)
    with pytest.raises(DataError, match=r"a.png: .* segment id 9"):
        segment_rows(ids, [Segment(5, 0, False)], where="a.png")
    # The lookup table is clean again.
    with pytest.raises(DataError, match="segment id 5"):
        segment_rows(ids, [Segment(9, 0, False)])
    assert segment_rows(ids, [Segment(9, 0, False), Segment(5, 1, False)]).tolist() == [[-1, 1], [1, 0]]


@pytest.mark.tao(9)
def test_what_was_cropped_away_has_neither_segment_nor_prompt() -> None:
    segments = [Segment(1, 2, False), Segment(2, 0, False), Segment(3, 2, False)]
    ids = np.array([[1, 1, 2, 2, 3]], np.int32)
    cropped = segment_rows(ids, segments)[None, :, :2]
    targets = segment_targets(cropped, segments, "panoptic", IS_THING, 8)
    assert targets.classes[: targets.count].tolist() == [2]
    prompts = prompt_rows(targets.classes[: targets.count], TASKS.index("panoptic"), 4, 5)
    assert prompts.tolist() == [2, 6, 6, 6, 6]


def test_an_image_without_segments() -> None:
    targets = segment_targets(np.full((1, 2, 3), VOID, np.int16), [], "panoptic", IS_THING, 8)
    assert targets.count == 0
    assert (targets.index == VOID).all()


def test_the_largest_segments_stay_and_it_is_said_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_module, "_warned", threading.Event())
    segments = [Segment(i, category, False) for i, category in ((1, 3), (2, 0), (3, 1))]
    rows = segment_rows(np.array([[1, 1, 1, 2, 3, 3]], np.int32), segments)[None]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            targets = segment_targets(rows, segments, "panoptic", IS_THING, 2)
    assert targets.classes.tolist() == [1, 3]
    assert targets.index.tolist() == [[[1, 1, 1, -1, 0, 0]]]
    assert len(caplog.records) == 1
    assert "3 segments" in caplog.text


def test_real_picture(open_split: Callable[..., Dataset], shared: Path) -> None:
    dataset = open_split(shared / "data" / "coco_panoptic_sample")
    record, rows = dataset.records[0], dataset.read_segments(0)
    counts = {
        task: segment_targets(rows, record.segments, task, dataset.categories.is_thing, 64).count for task in TASKS
    }
    alive = [s for s in record.segments if not s.iscrowd]
    assert counts["panoptic"] == len(alive)
    assert counts["semantic"] == len({s.category for s in alive})
    assert counts["instance"] == sum(bool(dataset.categories.is_thing[s.category]) for s in alive)


@pytest.mark.parametrize("task", ["instance", "panoptic"])
def test_as_many_segments_as_an_image_may_have_stay_apart(task: Task) -> None:
    """Every pixel is a segment of its own, the last ones too."""
    segments = [Segment(number + 1, number % 2, False) for number in range(MAX_SEGMENTS)]
    planes = np.full((1, 128, 256), VOID, np.int16)
    planes.ravel()[:MAX_SEGMENTS] = np.arange(MAX_SEGMENTS)
    assert planes.max() == MAX_SEGMENTS - 1 == planes[0, -1, -2], "no number has wrapped"
    targets = segment_targets(planes, segments, task, np.array([True, True]), MAX_SEGMENTS)
    assert targets.count == MAX_SEGMENTS
    assert len(np.unique(targets.index)) == MAX_SEGMENTS + 1
    classes = targets.classes[targets.index.ravel()[:MAX_SEGMENTS]]
    np.testing.assert_array_equal(classes, [segment.category for segment in segments])


def test_more_segments_are_refused_by_the_name_of_the_image(
    broken: Callable[[Callable[[dict[str, Any]], None]], Path],
    open_split: Callable[..., Dataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def crowd_in(content: dict[str, Any]) -> None:
        info = content["annotations"][1]["segments_info"][0]
        content["annotations"][1]["segments_info"] = [info | {"id": 1 + number} for number in range(100)]

    folder = broken(crowd_in)
    monkeypatch.setattr(dataset_module, "MAX_SEGMENTS", 99)
    with pytest.raises(DataError, match=r"image 1: 100 segments in one image, at most 99(.|\n)*into tiles"):
        open_split(folder)


def test_two_images_that_cutmix_may_join_have_room(train: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = PipelineSettings(2, 20, 2, {"panoptic": 1.0}, AugmentationSettings(), cutmix_prob=0.5)
    largest = max(len(record.segments) for record in train.records)
    monkeypatch.setattr(dataset_module, "MAX_SEGMENTS", 2 * largest)
    settings.fitted(train)
    monkeypatch.setattr(dataset_module, "MAX_SEGMENTS", 2 * largest - 1)
    with pytest.raises(DataError, match=r"with CutMix: .* segments in one image"):
        settings.fitted(train)
    replace(settings, cutmix_prob=0.0).fitted(train)
