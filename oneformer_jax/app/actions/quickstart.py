"""The quickstart: a drawn data set, training, three-task evaluation, pictures, one closing table."""

import math
import os
import shutil
import time
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from oneformer_jax.app.actions.evaluate import evaluate
from oneformer_jax.app.actions.inference import inference
from oneformer_jax.app.actions.train.train import train
from oneformer_jax.app.run.execute import running
from oneformer_jax.app.run.waiting import waiting
from oneformer_jax.app.settings.evaluation import evaluation_run, inference_run
from oneformer_jax.app.settings.training import training_run
from oneformer_jax.app.spec import Spec, load_spec
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.files import open_dataset
from oneformer_jax.data.drawn_shapes import nearest_colour_baseline, write_drawn_shapes
from oneformer_jax.devices import processor
from oneformer_jax.evaluation.metrics import GroundTruth, confusion_matrix, semantic_scores
from oneformer_jax.evaluation.report import headline, percent
from oneformer_jax.tasks import TASKS

TRAINING_IMAGES, HELD_OUT_IMAGES, PICTURES = 4000, 100, 8


def quickstart(spec_path: Path, overrides: list[str], console: Console) -> None:
    """Everything lies under the spec's results_dir. Run again, it reuses the data and resumes the training."""
    started, rate = time.monotonic(), processor()
    overrides = [*_devices(load_spec(spec_path, overrides)), *overrides]
    spec = load_spec(spec_path, overrides)
    folder = Path(spec.results_dir)
    data = folder / "data"
    if not (data / "label_map.json").is_file():
        console.print(f"drawing {TRAINING_IMAGES} training and {HELD_OUT_IMAGES} held-out images: {data}")
        sizes = {"train": TRAINING_IMAGES, "val": HELD_OUT_IMAGES}
        with waiting("drawing", console, sum(sizes.values())) as progress:
            write_drawn_shapes(data, sizes, seed=spec.train.seed, progress=progress)
    with running("train", spec_path, overrides, console) as (read, run):
        training = training_run(read, run.folder)
        train(training, run)

    best = [*overrides, f"evaluate.checkpoint={folder / 'train'}", f"inference.checkpoint={folder / 'train'}"]
    with running("evaluate", spec_path, best, console) as (read, run):
        evaluation = evaluation_run(read)
        metrics = evaluate(evaluation, run)
    validation = open_dataset(evaluation.scoring.data)
    chosen = folder / "data" / "pictures"
    chosen.mkdir(exist_ok=True)
    for record in validation.records[:PICTURES]:
        shutil.copy(record.image_path, chosen)
    for task in TASKS:
        extra = [f"inference.images_dir={chosen}", f"inference.mode={task}"]
        with running("inference", spec_path, best + extra, console) as (read, run):
            inference(inference_run(read), run)

    table = Table(title=f"quickstart: {HELD_OUT_IMAGES} held-out images (%)")
    for column in ("", "mIoU", "PQ", "SQ", "RQ", "AP"):
        table.add_column(column, justify="right" if column else "left")
    scores = headline(metrics)
    names = ("mIoU", "PQ", "SQ", "RQ", "AP")
    table.add_row("OneFormer", *(percent(scores.get(name, math.nan)) for name in names), style="bold")
    baseline = baseline_miou(open_dataset(training.data), validation)
    table.add_row("nearest colour", percent(baseline), "", "", "", "")
    console.print(table)
    places = {
        "pictures": folder / "inference",
        "metrics": folder / "evaluate" / "metrics.json",
        "report": folder / "evaluate" / "report.html",
        "learning curves": folder / "train" / "curves.png",
        "best checkpoint": folder / "train" / "best",
        "data": data,
    }
    for name, place in places.items():
        console.print(f"{name:>16}: {place}")
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    console.print(f"{'time':>16}: {minutes} min {seconds} s, where the processor has {rate}")


def _devices(spec: Spec) -> list[str]:
    """Without an accelerator's plugin JAX runs on the processor, which is faster as two devices that share a batch."""
    if entry_points(group="jax_plugins") or (os.cpu_count() or 1) == 1:
        return []
    return ["train.num_gpus=2", f"dataset.train.batch_size={spec.dataset.train.batch_size // 2}"]


def baseline_miou(training: Dataset, validation: Dataset) -> float:
    """What colours alone reach on the held-out images."""
    predict = nearest_colour_baseline(training)
    num_classes = len(validation.categories)
    confusion = np.zeros((num_classes, num_classes), np.int64)
    for index, record in enumerate(validation.records):
        truth = GroundTruth.from_segments(validation.read_segments(index), record.segments).class_map()
        confusion += confusion_matrix(predict(validation.read_image(index)), truth, truth >= 0, num_classes)
    return semantic_scores(confusion).overall["mIoU"]
