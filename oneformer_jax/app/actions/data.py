"""A spec's data sets before a training: what they hold, samples as the model will see them, stored as shards."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from oneformer_jax.app.run.asked import asked_of_scores, asked_of_training
from oneformer_jax.app.run.opened import check_split, check_validation, checked_datasets, open_splits, warn_of_notes
from oneformer_jax.app.run.status import only_process_in, result_folder
from oneformer_jax.app.run.waiting import waiting
from oneformer_jax.app.settings.data import splits_with_data
from oneformer_jax.app.settings.evaluation import monitor, tasks, validation_tasks
from oneformer_jax.app.settings.training import pipeline_settings
from oneformer_jax.app.spec import load_spec
from oneformer_jax.data.batch import Batch
from oneformer_jax.data.datasets import tfds_builder
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.check_files import Findings, version_of
from oneformer_jax.data.datasets.dataset import Dataset, Problems, front
from oneformer_jax.data.datasets.tfds_dataset import NAME, stored_sizes
from oneformer_jax.data.pipeline import PipelineSettings, record_order, task_probabilities, train_batches
from oneformer_jax.data.storage.addresses import PREPARED
from oneformer_jax.data.task_text import FILLERS
from oneformer_jax.postprocess.results import PanopticResult, PanopticSegment
from oneformer_jax.predict.draw import MIN_SHORT_EDGE, draw_panoptic
from oneformer_jax.predict.fonts import drawable, font_for
from oneformer_jax.predict.write import check_picture_path, write_image
from oneformer_jax.tasks import TASKS
from oneformer_jax.writing import remove_unfinished

_COMMON_SIZES = 5
_BAR = 20  # characters of the longest bar
SAMPLES, COLUMNS = 16, 4
_MARGIN = 14
_FONT_SIZE = 14.0
_LINES = 5  # of a caption
_INKS = ((20, 70, 170), (130, 130, 130), (30, 30, 30))  # of task, file and prompts

_NO_BREAK = "\u00a0"

Picture = UInt8[np.ndarray, "_ _ 3"]


def inspect_data(
    spec_path: Path, overrides: list[str], console: Console, *, strict: bool = False, output: Path | None = None
) -> None:
    """Checks every split that has annotations, `strict`: all of its pixels, and prints what it holds; then draws.

    Raises SpecError where keys are unset, DataError with all that is wrong, after the rest is printed.
    """
    if output is not None:
        check_picture_path(output)
    spec = load_spec(spec_path, overrides)
    problems, warn = Problems(), partial(console.print, style="yellow")
    datasets = open_splits(splits_with_data(spec), problems)
    for split, dataset in datasets.items():
        findings = check_split(split, dataset, console, version=version_of(dataset), strict=strict)
        problems.errors += findings.errors
        _describe(split, dataset, findings, console)
        warn_of_notes(dataset, warn)
        if split == "test" or "train" not in datasets:
            asked_of_scores(dataset, tasks(spec), warn)
    if "train" in datasets and not problems.errors:
        train, validated = datasets["train"], datasets.get("val")
        with problems.collected():
            if validated is not None:
                check_validation(train, validated)
            asked_of_training(
                train, dict(spec.dataset.task_prob_train), validated, validation_tasks(spec), monitor(spec), warn
            )
    problems.raise_all()
    if "train" in datasets:
        pipeline = pipeline_settings(spec)
        chances = zip(TASKS, task_probabilities(pipeline.task_prob), strict=True)
        console.print("tasks in training: " + ", ".join(f"{task} {chance:.0%}" for task, chance in chances))
        path = output or result_folder(spec.results_dir, "", "inspect") / "samples.png"
        write_image(path, draw_samples(pipeline, datasets["train"]))
        console.print(f"training samples: {path}")


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
            table.add_row(name, value)
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
    categories = [[segment.category for segment in record.segments] for record in dataset.records]
    images = Counter(category for found in categories for category in set(found))
    segments = Counter(category for found in categories for category in found)
    share = findings.pixels / max(1, findings.pixels.sum())
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "class", "", "images", "segments", "pixels", ""):
        table.add_column(name, justify="right" if name in ("images", "segments", "pixels") else "left")
    for index, item in enumerate(dataset.categories.items):
        bar = "█" * round(_BAR * share[index] / max(share.max(), 1e-9))
        kind = "thing" if item.isthing else "stuff"
        counts = (str(images[index]), str(segments[index]), f"{share[index]:.2%}")
        style = "yellow" if not segments[index] else ""
        table.add_row(str(index), item.name, kind, *counts, Text(bar, "rgb({},{},{})".format(*item.color)), style=style)
    table.add_row("", "void and crowds", "", "", "", f"{share[-1]:.2%}")
    table.caption = f"pixels: of {findings.images_read} images"
    return table


def draw_samples(settings: PipelineSettings, dataset: Dataset) -> Picture:
    """The first samples of a training with these settings."""
    batches = train_batches(dataset, replace(settings, batch_size=SAMPLES), first_sample=0)
    batch = next(batches)
    batches.close()
    order = record_order(len(dataset), settings.seed)
    panels = []
    for i in range(SAMPLES):
        sample = Batch(*(field[i] for field in batch))
        title = dataset.records[int(order[int(sample.sample)])].image_path.name
        task, prompts = _texts(sample, dataset.categories)
        panels.append((_picture(sample, dataset.categories), [task, title, prompts]))
    return _page(panels)


def _picture(sample: Batch, categories: Categories) -> Picture:
    """The crop with its segments, its short edge at `MIN_SHORT_EDGE`."""
    rows = front(sample.segment_index)
    scale = MIN_SHORT_EDGE / min(rows.shape)
    size = (round(rows.shape[1] * scale), round(rows.shape[0] * scale))
    image = cv2.resize(sample.images, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    ids = cv2.resize(rows, size, interpolation=cv2.INTER_NEAREST).astype(np.int32) + 1
    classes = sample.segment_class[sample.segment_class >= 0].tolist()
    segments = tuple(
        PanopticSegment(row + 1, category, bool(categories.is_thing[category]), 1.0, int((ids == row + 1).sum()))
        for row, category in enumerate(classes)
    )
    return draw_panoptic(image, PanopticResult(ids, segments), categories, scores=False)


def _texts(sample: Batch, categories: Categories) -> tuple[str, str]:
    """The task and the prompts, equal ones counted."""
    names = [*(drawable(name, f"class {index}") for index, name in enumerate(categories.names)), *FILLERS]
    counts = Counter(sample.prompts.tolist()).items()
    texts = {row: names[row] + (f"{_NO_BREAK}x{count}" if count > 1 else "") for row, count in counts}
    objects = ", ".join(text for row, text in texts.items() if row < len(categories))
    fillers = ", ".join(text for row, text in texts.items() if row >= len(categories))
    prompts = [f"a photo with a {objects}" if objects else "", fillers]
    return f"The task is {TASKS[int(sample.task)]}", "; ".join(filter(None, prompts))


def _page(panels: list[tuple[Picture, list[str]]]) -> Picture:
    """Pictures of one size in rows, each above its texts."""
    line = int(1.35 * _FONT_SIZE)
    height, width = panels[0][0].shape[:2]
    step_x, step_y = width + _MARGIN, height + _LINES * line + 2 * _MARGIN
    rows = -(-len(panels) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * step_x + _MARGIN, rows * step_y + _MARGIN), (255, 255, 255))
    brush = ImageDraw.Draw(page)
    for number, (picture, texts) in enumerate(panels):
        left, top = _MARGIN + number % COLUMNS * step_x, _MARGIN + number // COLUMNS * step_y
        page.paste(Image.fromarray(picture), (left, top))
        lines = [*texts[:2], *_wrapped(texts[2], width)]
        if len(lines) > _LINES:
            lines = [*lines[: _LINES - 1], f"{lines[_LINES - 1]} ..."]
        for i, text in enumerate(lines):
            text = text.replace(_NO_BREAK, " ")  # for which the font has no glyph
            font = font_for(text, _FONT_SIZE)
            brush.text((left, top + height + 6 + i * line), text, fill=_INKS[min(i, 2)], font=font)
    return np.asarray(page)


def _wrapped(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` pixels; a longer word stands alone."""
    lines, font = [""], font_for(text, _FONT_SIZE)
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def prepare(spec_path: Path, overrides: list[str], folder: Path, console: Console) -> None:
    """Checks the files of every split that the spec has, then stores what `folder` lacks of them.

    Raises OneFormerError: the data cannot be used, the folder holds other data, or the disk takes no more.
    """
    # Here, before any thread runs: while it loads, etils replaces `builtins.__import__` (etils.epy.lazy_imports), and
    # what the thread of a progress bar imports meanwhile fails.
    import tensorflow_datasets  # noqa: F401

    spec = load_spec(spec_path, overrides)
    datasets: dict[str, Dataset] = dict(checked_datasets(splits_with_data(spec), console).items())
    folder.mkdir(parents=True, exist_ok=True)
    images = sum(map(len, datasets.values()))
    with only_process_in(folder, "--output"), waiting(f"storing {', '.join(datasets)}", console, images) as progress:
        remove_unfinished(folder)
        tfds_builder.prepare(
            datasets,
            folder.resolve(),
            contiguous_id=spec.dataset.contiguous_id,
            progress=progress,
        )
    sizes = stored_sizes(folder)
    for split, dataset in datasets.items():
        own = [size for name, size in sizes.items() if name.startswith(f"{NAME}-{split}.")]
        console.print(f"{split}: {len(dataset)} images in {len(own)} shards, {sum(own) / 1e9:.2f} GB")
    address = json.dumps(f"{PREPARED}{folder.resolve()}")
    console.print(f"dataset.<split>: {{images: {address}}}")
