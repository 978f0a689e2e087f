"""One page that says what an import read, left out and guessed, with pictures: HTML without any other file."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape

import cv2
import numpy as np
from jaxtyping import UInt8

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.dataset import Dataset, listing
from oneformer_jax.data.importers.written import Counts
from oneformer_jax.errors import DataError
from oneformer_jax.evaluation.metrics import GroundTruth
from oneformer_jax.predict.draw import draw_panoptic

PICTURES = 16
_SHORT_EDGE, _LONG_EDGE = 320, 1280
_QUALITY = 80
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #888; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem .9rem .2rem 0; vertical-align: top; }
th { font-weight: 600; border-bottom: 1px solid var(--line); }
.wide { overflow-x: auto; } td, th { white-space: nowrap; } td:last-child { white-space: normal; min-width: 12rem; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.bar { display: inline-block; height: .7rem; border: 1px solid var(--line); } .soft { color: var(--soft); }
pre { white-space: pre-wrap; background: #8881; padding: .8rem; overflow-wrap: anywhere; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); gap: .9rem; }
figure { margin: 0; } figure img { width: 100%; display: block; }
figcaption { font-size: .8rem; overflow-wrap: anywhere; }
"""

Picture = UInt8[np.ndarray, "_ _ 3"]


def page(
    *,
    source: str,
    read_as: str,
    splits: Mapping[str, Counts],
    categories: Categories,
    guesses: Sequence[str],
    reasons: Sequence[str],
    left_out: Sequence[DataError],
    notes: Sequence[DataError],
    pictures: Sequence[tuple[str, Picture]],
    command: str,
) -> str:
    """The page: `pictures` have a caption each, `left_out` are files and `notes` parts of files."""
    body = [
        f"<h1>{escape(source)}</h1>",
        f"<p class=soft>{escape(read_as)}</p>",
        f"<pre>{escape(command)}</pre>",
        _splits(splits),
        _list("Guessed", guesses, "Nothing: the source says all of it."),
        _list("The spec", reasons, ""),
        _errors("Files left out", left_out, "None."),
        _errors("Labels left out", notes, "None."),
        _classes(splits, categories),
        "<h2>Pictures</h2><div class=pictures>",
        *map(_figure, pictures),
        "</div>",
    ]
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{escape(source)}</title>"
    return (
        f"<!doctype html><html lang=en><head>{head}<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def samples(dataset: Dataset) -> Iterator[tuple[str, Picture]]:
    """Up to `PICTURES` pictures, evenly spaced, with their labels drawn over them. Raises DataError."""
    for i in np.unique(np.linspace(0, len(dataset) - 1, PICTURES).astype(int)).tolist():
        image, planes = dataset.read(i)
        truth = GroundTruth.from_segments(planes, dataset.records[i].segments).as_panoptic()
        height, width = truth.ids.shape
        scale = min(_SHORT_EDGE / min(height, width), _LONG_EDGE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        ids = cv2.resize(truth.ids, size, interpolation=cv2.INTER_NEAREST)
        drawn = draw_panoptic(image, replace(truth, ids=ids), dataset.categories, scores=False)
        yield dataset.records[i].image_path.name, drawn


def _splits(splits: Mapping[str, Counts]) -> str:
    rows = []
    for split, counts in splits.items():
        sizes = ", ".join(f"{width} x {height} ({count})" for (height, width), count in counts.sizes.most_common(3))
        more = f" and {len(counts.sizes) - 3} more sizes" if len(counts.sizes) > 3 else ""
        numbers = sorted(counts.segments_of_images.elements())
        middle = numbers[len(numbers) // 2] if numbers else 0
        rows.append(
            [
                *(split, f"{counts.sizes.total()}", f"{counts.segments.total()}", f"{counts.crowds}", f"{middle}"),
                *(f"{numbers[-1] if numbers else 0}", f"{counts.segments_of_images[0]}", sizes + more),
            ]
        )
    names = ("split", "pictures", "segments", "crowds", "segments a picture", "at most", "pictures without", "sizes")
    return "<h2>Read</h2>" + _table(names, rows)


def _classes(splits: Mapping[str, Counts], categories: Categories) -> str:
    pixels = {split: max(1, counts.pixels.total()) for split, counts in splits.items()}
    largest = max([counts.pixels[i] / pixels[s] for s, counts in splits.items() for i in range(len(categories))] or [1])
    rows = []
    for index, item in enumerate(categories.items):
        cells = [f"{index}", escape(item.name), "thing" if item.isthing else "stuff"]
        for split, counts in splits.items():
            share = counts.pixels[index] / pixels[split]
            width = 8 * share / max(largest, 1e-9)
            color = "rgb({},{},{})".format(*item.color)
            bar = f"<span class=bar style='width:{width:.2f}rem;background:{color}'></span>"
            cells += [f"{counts.images[index]}", f"{counts.segments[index]}", f"{bar} {share:.2%}"]
        rows.append(cells)
    void = [f"{counts.pixels[-1] / pixels[split]:.2%}" for split, counts in splits.items()]
    rows.append(["", "no class, and crowds", "", *(cell for share in void for cell in ("", "", share))])
    columns = [f"{split}: {name}" for split in splits for name in ("pictures", "segments", "pixels")]
    return "<h2>Classes</h2>" + _table(("", "class", "", *columns), rows, escaped=True)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]], *, escaped: bool = False) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = []
    for row in rows:
        cells = (cell if escaped else escape(cell) for cell in row)
        lines.append("<tr>" + "".join(f"<td{' class=n' if cell.isdecimal() else ''}>{cell}</td>" for cell in cells))
    return f"<div class=wide><table><tr>{head}</tr>{''.join(lines)}</table></div>"


def _list(title: str, sentences: Sequence[str], none: str) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<h2>{title}</h2>" + (f"<ul>{items}</ul>" if items else f"<p class=soft>{none}</p>")


def _errors(title: str, errors: Sequence[DataError], none: str) -> str:
    if not errors:
        return f"<h2>{title}</h2><p class=soft>{none}</p>"
    lines = [line.removeprefix("  ") for line in listing("", errors).splitlines()[1:]]
    text = escape("\n".join(lines))
    return f"<h2>{title}: {len(errors)}</h2><pre>{text}</pre>"


def _figure(picture: tuple[str, Picture]) -> str:
    caption, pixels = picture
    content = cv2.imencode(".jpg", pixels[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))[1].tobytes()
    data = base64.b64encode(content).decode()
    name = escape(caption, quote=True)
    return f"<figure><img alt='{name}' src='data:image/jpeg;base64,{data}'><figcaption>{name}</figcaption></figure>"
