"""What a spec's data sets hold: sizes, classes, problems, and training samples as the model will see them."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from oneformer_jax.app.actions.inspect.samples import draw_samples
from oneformer_jax.app.run.checked_data import check_split, open_splits
from oneformer_jax.app.run.status import result_folder
from oneformer_jax.app.settings.data import splits_with_data
from oneformer_jax.app.settings.training import pipeline_settings
from oneformer_jax.app.spec import load_spec
from oneformer_jax.data.datasets.check_files import Findings, version_of
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.problems import Problems
from oneformer_jax.data.pipeline import task_probabilities
from oneformer_jax.tasks import TASKS

_COMMON_SIZES = 5
_BAR = 20  # characters of the longest bar


def inspect_data(
    spec_path: Path, overrides: list[str], console: Console, *, strict: bool = False, output: Path | None = None
) -> None:
    """Checks every split that has annotations, `strict`: all of its pixels, and prints what it holds; then draws.

    Raises SpecError where keys are unset, DataError with all that is wrong, after the rest is printed.
    """
    spec = load_spec(spec_path, overrides)
    problems = Problems()
    datasets = open_splits(splits_with_data(spec), problems)
    for split, dataset in datasets.items():
        findings = check_split(split, dataset, console, version=version_of(dataset), strict=strict)
        problems.errors += findings.errors
        _describe(split, dataset, findings, console)
    problems.raise_all()
    if "train" in datasets:
        pipeline = pipeline_settings(spec)
        chances = zip(TASKS, task_probabilities(pipeline.task_prob), strict=True)
        console.print("tasks in training: " + ", ".join(f"{task} {chance:.0%}" for task, chance in chances))
        path = output or result_folder(spec.results_dir, "", "inspect") / "samples.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_samples(pipeline, datasets["train"])).save(path)
        console.print(f"training samples: {path}", highlight=False, soft_wrap=True)


def _describe(split: str, dataset: Dataset, findings: Findings, console: Console) -> None:
    per_image = np.array([len(record.segments) for record in dataset.records])
    crowds = sum(segment.iscrowd for record in dataset.records for segment in record.segments)
    rows = {
        "annotations": ", ".join(f"{name} ({len(part)} images)" for name, part in dataset.parts.items() if name),
        "images": f"{len(dataset)}, {(per_image == 0).sum()} of them without a segment",
        "sizes": ", ".join(_sizes(dataset)),
        "segments": f"{per_image.sum()}, {crowds} of them crowds",
        "segments an image": "min {:.0f}, median {:.0f}, 95 % {:.0f}, max {:.0f}".format(
            *np.percentile(per_image, (0, 50, 95, 100))
        ),
    }
    table = Table(title=f"\n{split}: {dataset.where}", title_justify="left", box=box.SIMPLE, show_header=False)
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(value))
    console.print(table)
    console.print(_classes(dataset, findings))


def _sizes(dataset: Dataset) -> Iterator[str]:
    """The most common sizes, and between which sizes the others lie."""
    counts = Counter((record.width, record.height) for record in dataset.records)
    common = counts.most_common(_COMMON_SIZES)
    for (width, height), count in common:
        yield f"{width} x {height} ({count})"
    others = sorted(set(counts) - {size for size, _ in common}, key=lambda size: size[0] * size[1])
    if others:
        (w0, h0), (w1, h1) = others[0], others[-1]
        yield f"{len(others)} other sizes from {w0} x {h0} to {w1} x {h1} ({len(dataset) - sum(n for _, n in common)})"


def _classes(dataset: Dataset, findings: Findings) -> Table:
    """One row a class."""
    pairs = Counter((s.category, i) for i, record in enumerate(dataset.records) for s in record.segments)
    images = Counter(category for category, _ in pairs)
    segments = Counter[int]()
    for (category, _), count in pairs.items():
        segments[category] += count
    share = findings.pixels / max(1, findings.pixels.sum())
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "class", "", "images", "segments", "pixels", ""):
        table.add_column(name, justify="right" if name in ("images", "segments", "pixels") else "left")
    for index, item in enumerate(dataset.categories.items):
        bar = "█" * round(_BAR * share[index] / max(share.max(), 1e-9))
        kind = "thing" if item.isthing else "stuff"
        counts = (str(images[index]), str(segments[index]), f"{share[index]:.2%}")
        style = "yellow" if not segments[index] else ""
        table.add_row(
            str(index), Text(item.name), kind, *counts, Text(bar, "rgb({},{},{})".format(*item.color)), style=style
        )
    table.add_row("", "void and crowds", "", "", "", f"{share[-1]:.2%}")
    table.caption = f"pixels: of {findings.images_read} images"
    return table
