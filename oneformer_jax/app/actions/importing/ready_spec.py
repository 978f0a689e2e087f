"""The spec that trains on imported data as it stands: what the data can teach and score decides most of it."""

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from oneformer_jax.app.actions.importing.models import FOR_CPUS, ModelSize, fitting
from oneformer_jax.app.spec import Spec
from oneformer_jax.app.spec.dotted import merge, put
from oneformer_jax.app.spec.load import load_source
from oneformer_jax.app.spec.source import Source
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.content import MUCH_VOID
from oneformer_jax.data.geometry import Size
from oneformer_jax.data.importers.written import ANNOTATIONS, IMAGES, PANOPTIC, Counts
from oneformer_jax.evaluation.report import SCORES
from oneformer_jax.tasks import RICHEST_FIRST, TASKS, Task

_SMALLEST, _LARGEST = 0.6, 1.3  # scale of training images, times that at which pixels keep their size
_MOST_QUERIES = 500
_VALIDATIONS = 10
_MOST_STRETCHED = 4.0  # long edge by short edge
SHARE_OF_MEMORY = 0.9

Estimate = Callable[[Spec, int, Size], float]
"""Gigabytes that a training step of a spec needs with so many images of a size."""


@dataclass(frozen=True)
class Imported:
    """What was written: where it will lie, its classes, what each split holds, and whether labels are panoptic PNGs and
    tell objects apart."""

    folder: Path
    categories: Categories
    splits: Mapping[str, Counts]
    regions: bool
    has_objects: bool


@dataclass(frozen=True)
class ReadySpec:
    """The values of a spec, and why those are what they are, a sentence each."""

    values: dict[str, Any]
    reasons: list[str]


def ready_spec(data: Imported, memory: float | None, estimate: Estimate) -> ReadySpec:
    """`memory`: that of the GPU in gigabytes; None: a model for the processor. Raises OneFormerError: nothing fits."""
    train, reasons = data.splits["train"], list[str]()
    tasks = _tasks(data, reasons)
    images = train.sizes.total()

    def values_with(model: ModelSize, batch: int) -> dict[str, Any]:
        return _values(data, model, batch, tasks)

    if memory is None:
        model, batch = FOR_CPUS, min(FOR_CPUS.batch, max(1, images))
        reasons.append(
            "The model is a small one that any machine trains. --memory 24GB gives one for a GPU of that memory."
        )
    else:

        def needed(model: ModelSize, batch: int) -> float:
            values = values_with(model, batch)
            crop = values["dataset"]["augmentation"]["train_crop_size"]
            return estimate(load_source(Source(values), "the imported data"), batch, (crop[0], crop[1]))

        model, batch, used = fitting(SHARE_OF_MEMORY * memory, images, needed)
        reasons.append(
            f"{model.name} with batches of {batch} needs an estimated {used:.1f} of {memory:g} GB, of which "
            f"{SHARE_OF_MEMORY:.0%} are used. It learns faster from pretrained weights: train.pretrained_backbone."
        )
    values = values_with(model, batch)
    crop = values["dataset"]["augmentation"]["train_crop_size"][0]
    (height, width), _ = train.sizes.most_common(1)[0]
    reasons.append(
        f"Crops of {crop} x {crop} pixels, for pictures that are mostly {width} x {height}; "
        f"{values['model']['one_former']['num_object_queries']} queries for at most "
        f"{max(train.segments_of_images, default=0)} segments of a picture."
    )
    return ReadySpec(values, reasons)


def _tasks(data: Imported, reasons: list[str]) -> tuple[Task, ...]:
    """The tasks that the labels teach."""
    train = data.splits["train"]
    shown = [item.isthing for index, item in enumerate(data.categories.items) if train.segments[index]]
    things, stuff = data.has_objects and any(shown), not all(shown)
    void = train.pixels[-1] / max(1, train.pixels.total())
    if not things:
        reasons.append("The labels tell no objects apart, so only the semantic task is trained and scored.")
        return ("semantic",)
    if not stuff and void > MUCH_VOID:
        reasons.append(
            f"{void:.0%} of the pixels have no label, and all labels are objects, so only the instance task is trained "
            "and scored."
        )
        return ("instance",)
    reasons.append("There are objects and no larger areas without a label: all three tasks are trained and scored.")
    return TASKS


def _values(data: Imported, model: ModelSize, batch: int, tasks: tuple[Task, ...]) -> dict[str, Any]:
    train = data.splits["train"]
    images, short = train.sizes.total(), _median_short_edge(train.sizes)
    crop = min(model.largest_crop, -(-short // 32) * 32)
    test = max(32, min(short, 2 * model.largest_crop, 1024))
    keep = short / crop
    epochs = max(1, round(model.steps * batch / images))
    every = max(1, epochs // _VALIDATIONS)
    values: dict[str, Any] = {"results_dir": str(data.folder / "results"), "model": {}, "dataset": {}, "train": {}}
    merge(values["model"], copy.deepcopy(model.model))
    put(values, "model.sem_seg_head.num_classes", len(data.categories))
    put(values, "model.one_former.num_object_queries", _queries(train, model.queries))
    put(values, "model.test", {f"{task}_on": task in tasks for task in TASKS})
    for split, counts in data.splits.items():
        place = data.folder / split
        files = {"images": str(place / IMAGES), "annotations": str(place / ANNOTATIONS)}
        if data.regions:
            files["panoptic"] = str(place / PANOPTIC)
        size = batch if split == "train" else min(batch, 4, counts.sizes.total())
        values["dataset"][split] = {**files, "batch_size": size}
    values["dataset"] |= {
        "label_map": str(data.folder / "label_map.json"),
        "min_scale": round(max(0.1, _SMALLEST * keep), 2),
        "max_scale": round(_LARGEST * keep, 2),
        "task_prob_train": {task: round(1 / len(tasks), 3) for task in tasks},
        "augmentation": {
            "train_crop_size": [crop, crop],
            "test_min_size": test,
            "test_max_size": max(test, round(test * _stretch(train.sizes))),
        },
    }
    values["inference"] = {"mode": _richest(tasks)}
    height, width = _usual_size(train.sizes, test)
    values["export"] = {"input_height": height, "input_width": width}
    merge(values["train"], copy.deepcopy(model.train or {}))
    values["train"] |= {"num_epochs": epochs, "checkpoint_interval": every, "validation_interval": every}
    if (monitor := _monitor(data, tasks)) and "val" in data.splits:
        values["train"]["monitor"] = monitor
    return values


def _monitor(data: Imported, tasks: tuple[Task, ...]) -> str:
    """The score that decides which checkpoint is the best: that of the richest task that validation can score."""
    val = data.splits.get("val", Counts())
    shown = [item.isthing for index, item in enumerate(data.categories.items) if val.segments[index]]
    task = _richest(tasks)
    return SCORES[task][0] if (any(shown) if task == "instance" else shown) else ""


def _richest(tasks: tuple[Task, ...]) -> Task:
    return min(tasks, key=RICHEST_FIRST.index)


def _queries(train: Counts, usual: int) -> int:
    """A fifth more than the most segments of a picture, in tens."""
    most = max(train.segments_of_images, default=0)
    return min(_MOST_QUERIES, max(usual, -(-12 * most // 100) * 10))


def _median_short_edge(sizes: Counter[Size]) -> int:
    edges = np.repeat([min(size) for size in sizes], list(sizes.values()))
    return max(32, int(np.median(edges)))


def _usual_size(sizes: Counter[Size], short_edge: int) -> Size:
    """The commonest size, resized to a short edge, in multiples of what the model's maps are made of."""
    size = sizes.most_common(1)[0][0]
    height, width = (-(-round(edge * short_edge / min(size)) // 32) * 32 for edge in size)
    return height, width


def _stretch(sizes: Counter[Size]) -> float:
    ratios = np.repeat([max(size) / min(size) for size in sizes], list(sizes.values()))
    return float(min(_MOST_STRETCHED, np.quantile(ratios, 0.95)))
