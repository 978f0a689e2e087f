"""A page of training samples: crops as they enter the model, their segments, task and prompts."""

from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from oneformer_jax.data.batch import Batch
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.dataset import Dataset, front
from oneformer_jax.data.pipeline import PipelineSettings, record_order, train_batches
from oneformer_jax.data.task_text import FILLERS
from oneformer_jax.postprocess.panoptic import PanopticResult, PanopticSegment
from oneformer_jax.predict.draw import MIN_SHORT_EDGE, draw_panoptic
from oneformer_jax.tasks import TASKS

SAMPLES, COLUMNS = 16, 4
_MARGIN = 14
_FONT_SIZE = 14
_LINES = 5  # of a caption
_INKS = ((20, 70, 170), (130, 130, 130), (30, 30, 30))  # of task, file and prompts

_NO_BREAK = "\u00a0"

Picture = UInt8[np.ndarray, "_ _ 3"]


def draw_samples(settings: PipelineSettings, dataset: Dataset) -> Picture:
    """The first samples of a training with these settings."""
    batches = train_batches(dataset, replace(settings, batch_size=SAMPLES), start_step=0)
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
    return draw_panoptic(image, PanopticResult(ids, segments), categories)


def _texts(sample: Batch, categories: Categories) -> tuple[str, str]:
    """The task and the prompts, equal ones counted."""
    names = [*categories.names, *FILLERS]
    counts = Counter(sample.prompts.tolist())
    objects, fillers = (
        ", ".join(
            names[row] + (f"{_NO_BREAK}x{count}" if count > 1 else "") for row, count in counts.items() if chosen(row)
        )
        for chosen in (lambda row: row < len(categories), lambda row: row >= len(categories))
    )
    prompts = [f"a photo with a {objects}" if objects else "", fillers]
    return f"The task is {TASKS[int(sample.task)]}", "; ".join(filter(None, prompts))


def _page(panels: list[tuple[Picture, list[str]]]) -> Picture:
    """Pictures of one size in rows, each above its texts."""
    font = ImageFont.load_default(_FONT_SIZE)
    line = int(1.35 * _FONT_SIZE)
    height, width = panels[0][0].shape[:2]
    step_x, step_y = width + _MARGIN, height + _LINES * line + 2 * _MARGIN
    rows = -(-len(panels) // COLUMNS)
    page = Image.new("RGB", (COLUMNS * step_x + _MARGIN, rows * step_y + _MARGIN), (255, 255, 255))
    brush = ImageDraw.Draw(page)
    for number, (picture, texts) in enumerate(panels):
        left, top = _MARGIN + number % COLUMNS * step_x, _MARGIN + number // COLUMNS * step_y
        page.paste(Image.fromarray(picture), (left, top))
        lines = [*texts[:2], *_wrapped(texts[2], width, font)]
        if len(lines) > _LINES:
            lines = [*lines[: _LINES - 1], f"{lines[_LINES - 1]} ..."]
        for i, text in enumerate(lines):
            text = text.replace(_NO_BREAK, " ")  # for which the font has no glyph
            brush.text((left, top + height + 6 + i * line), text, fill=_INKS[min(i, 2)], font=font)
    return np.asarray(page)


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """`text` in lines of at most `width` pixels; a longer word stands alone."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
