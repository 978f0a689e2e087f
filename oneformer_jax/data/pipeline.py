"""Training batches: files -> `Batch`, in an order that is a pure function of (seed, global sample index).

Position i of the endless, per epoch shuffled stream is the global sample index: it names the record and keys every
random draw. Neither the size of batches nor the number of workers and processes changes a sample, and a run resumes by
seeking.

Worker processes heed no signals, which a terminal or a scheduler sends to all of a group, and end with their parent.
One that the system kills leaves no exception: each notes the sample that it prepares in a file, mapped into its memory,
which the parent reads when a process has gone.
"""

import math
import mmap
import multiprocessing
import os
import re
import struct
import tempfile
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import grain.python as grain
import numpy as np
from absl import flags
from jaxtyping import Int

from oneformer_jax.data.augmentation import AugmentationSettings, Sample, augment, cutmix
from oneformer_jax.data.batch import Batch, segment_targets
from oneformer_jax.data.datasets.dataset import Dataset, check_segments, naming
from oneformer_jax.data.task_text import prompt_rows
from oneformer_jax.errors import OneFormerError, SpecError
from oneformer_jax.stopping import ignore_signals, unheard_by_children
from oneformer_jax.tasks import TASKS

# Decoding and OpenCV release the interpreter lock: few workers are threads, which start at once and share memory.
_MAX_THREADS = 4
_BATCHES_AHEAD = 4
_WORKER_ENDED = re.compile(r"Worker process was terminated unexpectedly with exit code (-?\d+)")  # Grain's words
_NOTE = struct.Struct("qqq")  # the process, the global sample index and the record that it prepares; -1: none
_notes: list[mmap.mmap] = []  # of this process: one if it is a worker


@dataclass(frozen=True)
class PipelineSettings:
    """What a training batch looks like.

    `batch_size` counts the images of one step over all processes. `max_segments` (T) and `planes` (R) are the fixed
    sizes of the segment table and of its maps, 0: what the data set needs; an image gets `num_queries - n_ctx` prompts.
    `task_prob` maps task names to probabilities, which are normalised; a task that is absent is never drawn. With
    `cutmix_prob` a sample shows segments of two images: the table then needs twice the rows. `num_workers` 0 prepares
    samples in the caller's thread, up to 4 are threads, more are processes.
    """

    batch_size: int
    num_queries: int
    n_ctx: int
    task_prob: Mapping[str, float]
    augmentation: AugmentationSettings
    max_segments: int = 0
    cutmix_prob: float = 0.0
    seed: int = 0
    planes: int = 0
    num_workers: int = 2

    def fitted(self, dataset: Dataset) -> "PipelineSettings":
        """The same with table sizes that hold every image of `dataset`, where they are not set.

        Raises DataError: two images that are mixed may have too many segments.
        """
        if self.cutmix_prob:
            check_segments(2 * max(len(record.segments) for record in dataset.records), f"{dataset.where}, with CutMix")
        needed = max_segments_of(dataset, self.num_queries, images=2 if self.cutmix_prob else 1)
        return replace(self, max_segments=self.max_segments or needed, planes=self.planes or dataset.planes)


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Steps in which every image has been seen at least once."""
    return math.ceil(len(dataset) / batch_size)


def max_segments_of(dataset: Dataset, num_queries: int, images: int = 1) -> int:
    """Rows that the segment table needs for samples of so many images: a multiple of 8, at most Q."""
    largest = max(sum(not segment.iscrowd for segment in record.segments) for record in dataset.records)
    return min(num_queries, max(8, math.ceil(images * largest / 8) * 8))


def max_prompts_of(dataset: Dataset, settings: PipelineSettings) -> int:
    """The most different rows of the prompt table that a sample shows: those of its classes, and the filler."""
    largest = max(len({segment.category for segment in record.segments}) for record in dataset.records)
    return (2 if settings.cutmix_prob else 1) * largest + 1


def task_probabilities(task_prob: Mapping[str, float]) -> tuple[float, ...]:
    """Normalised probabilities in the order of TASKS. Raises SpecError: unknown task, negative or all zero."""
    unknown = set(task_prob) - set(TASKS)
    if unknown:
        raise SpecError(f"unknown task '{min(unknown)}'", where="dataset.task_prob_train", hint=f"known: {TASKS}")
    weights = [float(task_prob.get(task, 0.0)) for task in TASKS]
    if min(weights) < 0 or not 0 < sum(weights) < math.inf:
        raise SpecError(f"{dict(task_prob)} is not a set of probabilities", where="dataset.task_prob_train")
    return tuple(weight / sum(weights) for weight in weights)


@dataclass(frozen=True)
class SampleMaker:
    """One training sample from (sample index, record index): a `Batch` without its leading axis."""

    dataset: Dataset
    settings: PipelineSettings

    def __call__(self, sample: int, index: int) -> Batch:
        record = self.dataset.records[index]
        try:
            with noted(sample, index):
                return self._sample(sample, index)
        except Exception as error:
            error.add_note(f"while preparing image {record.image_path} (sample {sample})")
            raise

    def _sample(self, sample: int, index: int) -> Batch:
        settings, categories = self.settings, self.dataset.categories
        rng = np.random.default_rng((settings.seed, sample))
        task = int(rng.choice(len(TASKS), p=task_probabilities(settings.task_prob)))
        image, planes, segments = self._augmented(index, rng)
        if rng.random() < settings.cutmix_prob:
            other = self._augmented(int(rng.integers(len(self.dataset))), rng)
            image, planes, segments = cutmix((image, planes, segments), other, rng)
        targets = segment_targets(
            planes, segments, TASKS[task], categories.is_thing, settings.max_segments, settings.planes
        )
        prompts = prompt_rows(
            targets.classes[: targets.count], task, len(categories), settings.num_queries - settings.n_ctx
        )
        return Batch(
            images=image,
            segment_index=targets.index,
            segment_class=targets.classes,
            segment_plane=targets.planes,
            task=np.array(task, np.int32),
            prompts=prompts,
            sample=np.array(sample, np.int32),
        )

    def _augmented(self, index: int, rng: np.random.Generator) -> Sample:
        with naming(self.dataset.records[index]):
            image, planes = self.dataset.read(index)
        return *augment(image, planes, self.settings.augmentation, rng), self.dataset.records[index].segments


def record_order(count: int, seed: int) -> "grain.MapDataset[int]":
    """The record of every global sample index: endless, shuffled anew in each epoch."""
    return grain.MapDataset.range(count).shuffle(seed=seed % (1 << 32)).repeat()


def image_names(dataset: Dataset, settings: PipelineSettings, samples: Sequence[int]) -> list[str]:
    """The image files of these global sample indices, without repetition."""
    order = record_order(len(dataset), settings.seed)
    return list(dict.fromkeys(str(dataset.records[order[sample]].image_path) for sample in samples))


def train_batches(
    dataset: Dataset,
    settings: PipelineSettings,
    *,
    first_sample: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Generator[Batch, None, None]:
    """Endless batches from the global sample index `first_sample` on: this process's share of every global batch.

    Process p of n holds the p-th of n equal parts of each batch: the parts, one after the other, are the same batch on
    every topology. Close the iterator to end worker processes early.

    Raises SpecError: `batch_size` is not a multiple of `process_count`, or the task probabilities are unusable.
    While iterating, DataError: a file is unreadable or contradicts another; OneFormerError: a worker process was ended.
    """
    if settings.batch_size % process_count:
        raise SpecError(f"a batch of {settings.batch_size} images is not a multiple of the {process_count} processes")
    task_probabilities(settings.task_prob)
    settings = settings.fitted(dataset)
    share = settings.batch_size // process_count
    rows = range(process_index * share, (process_index + 1) * share)
    batches = (
        record_order(len(dataset), settings.seed)[first_sample:]
        .batch(settings.batch_size, drop_remainder=True)
        .map_with_index(BatchMaker(SampleMaker(dataset, settings), first_sample, rows))
    )
    return _iterate(batches, settings.num_workers, dataset)


@dataclass(frozen=True)
class BatchMaker:
    """The `rows` of a batch from its number and the record indices of all its rows.

    Batch 0 begins with `first_sample`.
    """

    sample_maker: SampleMaker
    first_sample: int
    rows: range

    def __call__(self, number: int, records: Int[np.ndarray, " b"]) -> Batch:
        first = self.first_sample + number * len(records)
        samples = [self.sample_maker(first + row, int(records[row])) for row in self.rows]
        return Batch(*(np.stack(field) for field in zip(*samples, strict=True)))


def _iterate(batches: "grain.MapDataset[Batch]", num_workers: int, dataset: Dataset) -> Generator[Batch, None, None]:
    with ExitStack() as stack:
        if num_workers <= _MAX_THREADS:
            ahead = min(_BATCHES_AHEAD, num_workers + 1)
            stream = batches.to_iter_dataset(grain.ReadOptions(num_threads=num_workers, prefetch_buffer_size=ahead))
        else:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # Grain reads absl flags, which only absl's own main function parses
            notes = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oneformer-workers-")))
            stream = batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)).mp_prefetch(
                grain.MultiprocessingOptions(num_workers=num_workers), worker_init_fn=partial(start_worker, notes)
            )
        with unheard_by_children():
            iterator = iter(stream)
        stack.callback(iterator.close)
        try:
            while (batch := _next(iterator)) is not None:
                # What worker processes send lies in shared memory that ends with them; the copy does not.
                yield batch if num_workers <= _MAX_THREADS else Batch(*(np.array(field) for field in batch))
        except RuntimeError as error:
            if ended := _WORKER_ENDED.match(str(error)):
                raise _of_ended_worker(ended[1], left_unfinished(notes), dataset) from error
            raise


def _next(iterator: "grain.DatasetIterator[Batch]") -> Batch | None:
    with unheard_by_children():  # Grain starts workers when it needs them
        return next(iterator, None)


def _of_ended_worker(code: str, unfinished: list[tuple[int, int]], dataset: Dataset) -> OneFormerError:
    places = [f"image {dataset.records[record].image_path} (sample {sample})" for sample, record in unfinished]
    during = f" while it was preparing {', '.join(places)}" if places else ""
    return OneFormerError(
        f"a worker process ended unexpectedly (exit code {code}){during}",
        hint="the system kills processes when memory runs out: lower dataset.train.num_workers or "
        "dataset.train.batch_size",
    )


def start_worker(folder: Path, index: int, count: int) -> None:
    """What worker `index` of `count` does first; its note lies in `folder`."""
    ignore_signals()
    cv2.setNumThreads(0)  # the workers are the parallelism
    path = folder / str(index)
    path.write_bytes(_NOTE.pack(os.getpid(), -1, -1))
    with path.open("r+b") as file:
        _notes[:] = [mmap.mmap(file.fileno(), 0)]
    threading.Thread(target=_die_with_parent, daemon=True).start()


@contextmanager
def noted(sample: int, record: int) -> Iterator[None]:
    """Inside the block, a worker process counts as preparing that record."""
    for note in _notes:
        _NOTE.pack_into(note, 0, os.getpid(), sample, record)
    yield
    for note in _notes:
        _NOTE.pack_into(note, 0, os.getpid(), -1, -1)


def left_unfinished(folder: Path) -> list[tuple[int, int]]:
    """Sample and record that each worker was at, of those workers that are no more."""
    notes = [_NOTE.unpack(path.read_bytes()) for path in sorted(folder.iterdir())]
    return [(sample, record) for pid, sample, record in notes if sample >= 0 and not _is_alive(pid)]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _die_with_parent() -> None:
    # A parent that SIGTERM or the kernel ends cannot stop its workers, and they would stay for good.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
