import dataclasses
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from oneformer_jax.data.augmentation import AugmentationSettings
from oneformer_jax.data.batch import Batch
from oneformer_jax.data.coco_panoptic import PanopticDataset
from oneformer_jax.data.pipeline import (
    PipelineSettings,
    max_segments_of,
    steps_per_epoch,
    task_probabilities,
    train_batches,
)
from oneformer_jax.errors import DataError, SpecError
from oneformer_jax.spec.tasks import TASKS

SETTINGS = PipelineSettings(
    batch_size=4,
    num_queries=20,
    n_ctx=4,
    max_segments=8,
    task_prob={"semantic": 1.0, "instance": 1.0, "panoptic": 1.0},
    augmentation=AugmentationSettings(crop=(48, 64)),
    seed=5,
    num_workers=0,
)


def take(dataset: PanopticDataset, count: int, start: int = 0, process: tuple[int, int] = (0, 1), **changes: object):
    settings = dataclasses.replace(SETTINGS, **changes)
    stream = train_batches(dataset, settings, start_step=start, process_index=process[0], process_count=process[1])
    batches = list(islice(stream, count))
    stream.close()
    return batches


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for name, x, y in zip(Batch._fields, a, b, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=name, strict=True)


def test_one_batch(train: PanopticDataset) -> None:
    (batch,) = take(train, 1)
    assert {name: (value.shape, str(value.dtype)) for name, value in batch._asdict().items()} == {
        "images": ((4, 48, 64, 3), "uint8"),
        "segment_index": ((4, 1, 48, 64), "int16"),
        "segment_class": ((4, 8), "int32"),
        "segment_plane": ((4, 8), "int32"),
        "task": ((4,), "int32"),
        "prompts": ((4, 16), "int32"),
        "sample": ((4,), "int32"),
    }
    for index, classes, task, prompts in zip(
        batch.segment_index, batch.segment_class, batch.task, batch.prompts, strict=True
    ):
        present = classes[classes >= 0]
        assert sorted(set(np.unique(index)) - {-1}) == list(range(len(present)))
        assert prompts.tolist() == [*present, *[7 + task] * (16 - len(present))]
        if TASKS[task] == "instance":
            assert (present < 5).all()


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_change_nothing(train: PanopticDataset, workers: int) -> None:
    assert_same(take(train, 6, num_workers=workers), take(train, 6))


def test_worker_processes_change_nothing(train: PanopticDataset) -> None:
    assert_same(take(train, 6, num_workers=5), take(train, 6))


def test_seeking_equals_reading(train: PanopticDataset) -> None:
    assert_same(take(train, 3, start=4), take(train, 7)[4:])
    assert_same(take(train, 2, start=10**6), take(train, 2, start=10**6, num_workers=2))


def test_processes_share_the_global_batch(train: PanopticDataset) -> None:
    whole = take(train, 3, start=2)
    for p in range(2):
        part = take(train, 3, start=2, process=(p, 2))
        assert_same(part, [Batch(*(field[p::2] for field in batch)) for batch in whole])
    with pytest.raises(SpecError, match="4 images cannot be shared by 3"):
        take(train, 1, process=(0, 3))


def test_every_epoch_shows_every_image_in_a_new_order(train: PanopticDataset) -> None:
    # Without augmentation and with one task, an image is known by its pixels.
    still = AugmentationSettings(crop=(64, 64), min_scale=1.0, max_scale=1.0, flip_prob=0.0, color_prob=0.0)
    batches = take(train, 3, batch_size=10, augmentation=still)
    files = [train.read_image(i).tobytes() for i in range(len(train))]
    orders = [[files.index(image.tobytes()) for image in batch.images] for batch in batches]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len(set(map(tuple, orders))) == 3
    assert [batch.sample.tolist() for batch in batches] == [list(range(10 * e, 10 * e + 10)) for e in range(3)]
    other = take(train, 1, batch_size=10, augmentation=still, seed=6)[0]
    assert [files.index(image.tobytes()) for image in other.images] != orders[0]


def test_tasks_follow_their_probabilities(train: PanopticDataset) -> None:
    batches = take(train, 20, batch_size=10, task_prob={"semantic": 0.6, "panoptic": 0.2})
    counts = np.bincount(np.concatenate([batch.task for batch in batches]), minlength=3)
    assert counts[TASKS.index("instance")] == 0
    assert abs(counts[TASKS.index("semantic")] / 200 - 0.75) < 0.12


@pytest.mark.parametrize(
    "weights", [{"semantic": 0.0}, {"semantic": -1.0, "panoptic": 2.0}, {"depth": 1.0}, {"semantic": float("nan")}]
)
def test_unusable_task_probabilities(weights: dict[str, float]) -> None:
    with pytest.raises(SpecError, match="task_prob_train"):
        task_probabilities(weights)


@pytest.mark.parametrize("workers", [0, 2, 5])
def test_a_record_that_fails_is_named(
    broken: Callable, open_split: Callable[..., PanopticDataset], workers: int
) -> None:
    folder: Path = broken(lambda content: None)
    (folder / "images" / "000002.png").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"images/000002.png: the image cannot be read"):
        take(open_split(folder), 2, num_workers=workers)


def test_sizes_of_a_run(train: PanopticDataset, shared: Path) -> None:
    assert steps_per_epoch(train, 4) == 3
    assert steps_per_epoch(train, 5) == 2
    assert max_segments_of(train, 100) == 8
    root = shared / "data" / "camvid" / "train"
    camvid = PanopticDataset(root / "images", root / "panoptic", root / "annotations.json")
    assert max_segments_of(camvid, 150) == 40  # 39 segments at most
    assert max_segments_of(camvid, 20) == 20
