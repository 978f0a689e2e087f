import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from clusters import ended

from oneformer_jax.data import pipeline
from oneformer_jax.data.augmentation import AugmentationSettings
from oneformer_jax.data.batch import Batch
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.data.pipeline import (
    PipelineSettings,
    SampleMaker,
    max_prompts_of,
    max_segments_of,
    record_order,
    steps_per_epoch,
    task_probabilities,
    train_batches,
)
from oneformer_jax.errors import DataError, OneFormerError, SpecError
from oneformer_jax.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
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


def take(dataset: Dataset, count: int, start: int = 0, process: tuple[int, int] = (0, 1), **changes: object):
    settings = dataclasses.replace(SETTINGS, **changes)
    first = start * settings.batch_size
    stream = train_batches(dataset, settings, first_sample=first, process_index=process[0], process_count=process[1])
    batches = list(islice(stream, count))
    stream.close()
    return batches


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for name, x, y in zip(Batch._fields, a, b, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=name, strict=True)


def test_one_batch(train: Dataset) -> None:
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
def test_threads_change_nothing(train: Dataset, workers: int) -> None:
    assert_same(take(train, 6, num_workers=workers), take(train, 6))


@pytest.mark.slow
def test_worker_processes_change_nothing(train: Dataset) -> None:
    assert_same(take(train, 6, num_workers=4), take(train, 6))


def test_seeking_equals_reading(train: Dataset) -> None:
    assert_same(take(train, 3, start=4), take(train, 7)[4:])
    assert_same(take(train, 2, start=10**6), take(train, 2, start=10**6, num_workers=2))


def test_the_size_of_batches_changes_no_sample(train: Dataset) -> None:
    """As many images as a multiple of neither size: the larger batches go on where the smaller ones stopped."""

    def images(batches: list[Batch]) -> Batch:
        return Batch(*(np.concatenate(field) for field in zip(*batches, strict=True)))

    whole, settings = images(take(train, 5)), dataclasses.replace(SETTINGS, batch_size=7)
    before = images(take(train, 3, batch_size=2))
    with closing(train_batches(train, settings, first_sample=6)) as stream:
        after = images(list(islice(stream, 2)))
    assert_same([images([before, after])], [whole])


def test_processes_share_the_global_batch(train: Dataset) -> None:
    whole = take(train, 3, start=2)
    for p in range(2):
        part = take(train, 3, start=2, process=(p, 2))
        assert_same(part, [Batch(*(field[2 * p : 2 * p + 2] for field in batch)) for batch in whole])
    with pytest.raises(SpecError, match="4 images is not a multiple of the 3"):
        take(train, 1, process=(0, 3))


def test_every_epoch_shows_every_image_in_a_new_order(train: Dataset) -> None:
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


@pytest.mark.tao(10)
def test_tasks_follow_their_probabilities(train: Dataset) -> None:
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


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2, 4])
def test_a_record_that_fails_is_named(broken: Callable, open_split: Callable[..., Dataset], workers: int) -> None:
    folder: Path = broken(lambda content: None)
    (folder / "images" / "000002.png").write_bytes(b"rubbish")
    with pytest.raises(DataError, match=r"images/000002.png: image 2: the image cannot be read"):
        take(open_split(folder), 2, num_workers=workers)


class Deadly(Dataset):
    """A data set one of whose images kills the process that reads it."""

    def __init__(self, whole: Dataset, victim: int) -> None:
        self.whole, self.victim = whole, victim
        self.records, self.categories, self.where, self.parts = (
            whole.records,
            whole.categories,
            whole.where,
            whole.parts,
        )

    planes = 1

    def read_image(self, i: int) -> np.ndarray:
        if i == self.victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.whole.read_image(i)

    def read_segments(self, i: int) -> np.ndarray:
        return self.whole.read_segments(i)


@pytest.mark.slow
def test_a_worker_process_that_is_killed_names_what_it_prepared(
    train: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_MAX_THREADS", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    victim = int(record_order(len(train), SETTINGS.seed)[14])
    path = train.records[victim].image_path
    with pytest.raises(OneFormerError, match=rf"\(exit code -9\) while it was preparing image {path} \(sample \d+\)\n"):
        take(Deadly(train, victim), 20, num_workers=2)
    assert not list(tmp_path.iterdir()), "its temporary files are gone"


WATCHED = """
import os, signal, sys, threading, time
from itertools import islice
from pathlib import Path
from oneformer_jax import stopping
from oneformer_jax.data import pipeline
from oneformer_jax.data.augmentation import AugmentationSettings
from oneformer_jax.data.datasets.sources import Source, open_sources

if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup, around the tests, would have switched off
    pipeline._MAX_THREADS = 1
    folder = Path(sys.argv[1])
    dataset = open_sources([Source(folder / "annotations.json", folder / "images", folder / "panoptic")])
    augmentation = AugmentationSettings(crop=(48, 64))
    settings = pipeline.PipelineSettings(2, 20, 4, {"panoptic": 1.0}, augmentation, seed=5, num_workers=2)
    stopping.ONE_REQUEST = 600
    signals = [*stopping.STOP_SIGNALS] * 5

    def to_the_group():
        for number in signals:
            os.killpg(0, number)
            time.sleep(0.2)

    with stopping.stop_requests() as stop:
        sender = threading.Thread(target=to_the_group)
        sender.start()
        batches = pipeline.train_batches(dataset, settings, first_sample=0)
        first = list(islice(batches, 3))
        sender.join()
        rest = list(islice(batches, 9))
        children = " ".join(path.read_text() for path in Path("/proc/self/task").glob("*/children"))
        print(stop.signal, [int(i) for batch in first + rest for i in batch.sample], children, sep="\\n", flush=True)
        time.sleep(60)
"""


@pytest.mark.slow
def test_workers_hear_no_signal_of_the_group_and_end_with_their_parent(drawn: Path, tmp_path: Path) -> None:
    """Signals come from the moment on in which the workers start."""
    script = tmp_path / "watched.py"
    script.write_text(WATCHED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(drawn / "train")],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    assert process.stdout is not None
    with ended([process]):
        noted, samples, children = (process.stdout.readline() for _ in range(3))
        assert int(noted) in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        assert json.loads(samples) == list(range(24))
        workers = [Path("/proc") / child for child in children.split()]
        assert len(workers) >= 2
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while (left := [worker for worker in workers if worker.exists()]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def test_overlapping_masks_reach_the_batch_whole(drawn: Path, tmp_path: Path) -> None:
    """The things of the drawn pictures as boxes: the batch holds each box as the annotations have it."""
    content = json.loads((drawn / "train" / "annotations.json").read_text())
    boxes: dict[int, set[tuple[int, ...]]] = {image["id"]: set() for image in content["images"]}
    annotations = []
    for annotation in content["annotations"]:
        for info in annotation["segments_info"]:
            x, y, w, h = info["bbox"]
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            entry = {"id": len(annotations) + 1, "image_id": annotation["image_id"], "iscrowd": 0}
            annotations.append(entry | {"category_id": info["category_id"], "segmentation": [outline]})
            if info["category_id"] <= 5:
                boxes[annotation["image_id"]].add((info["category_id"] - 1, x, y, w, h))
    (tmp_path / "boxes.json").write_text(json.dumps({**content, "annotations": annotations}))
    dataset = open_sources([Source(tmp_path / "boxes.json", drawn / "train" / "images")])
    assert dataset.planes > 2
    still = AugmentationSettings(crop=(64, 64), min_scale=1.0, max_scale=1.0, flip_prob=0.0, color_prob=0.0)
    (batch,) = take(
        dataset, 1, batch_size=10, augmentation=still, task_prob={"instance": 1.0}, planes=dataset.planes, num_workers=2
    )
    assert batch.segment_index.shape == (10, dataset.planes, 64, 64)
    files = [dataset.read_image(i).tobytes() for i in range(10)]
    for image, index, classes, planes in zip(
        batch.images, batch.segment_index, batch.segment_class, batch.segment_plane, strict=True
    ):
        found = set()
        for t in np.flatnonzero(classes >= 0):
            ys, xs = np.nonzero(index[planes[t]] == t)
            x, y, w, h = xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1
            assert len(xs) == w * h, "the whole rectangle"
            found.add(tuple(map(int, (classes[t], x, y, w, h))))
        assert found == boxes[dataset.records[files.index(image.tobytes())].image_id]


def test_sizes_of_a_run(train: Dataset, open_split: Callable[..., Dataset], shared: Path) -> None:
    assert steps_per_epoch(train, 4) == 3
    assert steps_per_epoch(train, 5) == 2
    assert max_segments_of(train, 100) == 8
    camvid = open_split(shared / "data" / "camvid" / "train")
    assert max_segments_of(camvid, 150) == 40  # 39 segments at most
    assert max_segments_of(camvid, 20) == 20


@pytest.mark.parametrize("cutmix_prob", [0.0, 1.0])
def test_no_sample_shows_more_prompts_than_foretold(train: Dataset, cutmix_prob: float) -> None:
    made = dataclasses.replace(SETTINGS, cutmix_prob=cutmix_prob).fitted(train)
    shown = {len(np.unique(SampleMaker(train, made)(sample, sample % len(train)).prompts)) for sample in range(60)}
    largest = max_prompts_of(train, made)
    assert max(shown) <= largest
    assert cutmix_prob or max(shown) == largest
