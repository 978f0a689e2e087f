"""An evaluation as one HTML file, which needs no other file and no network."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from oneformer_jax.evaluation.evaluator import Metrics
from oneformer_jax.predict.report import charts
from oneformer_jax.predict.report.layers import COLORS, ERRORS, LAYERS

_QUALITY = 82
_STYLE, _SCRIPT = (Path(__file__).with_name(name).read_text() for name in ("page.css", "page.js"))
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
FIRST = "prediction"
"""The layer that is shown at first."""


@dataclass(frozen=True)
class Shown:
    """A picture of the report: `quality` from 0 to 1, the names of the classes in it, and its `LAYERS`."""

    name: str
    quality: float
    is_best: bool
    classes: Sequence[str]
    layers: Mapping[str, UInt8[np.ndarray, "_ _ 3"]]


def report_page(title: str, facts: Sequence[str], metrics: Metrics, pictures: Iterable[Shown]) -> str:
    """The page. `title` names the model, `facts` are sentences under it."""
    body = [f"<h1>{escape(title)}</h1>", *(f"<p class=soft>{escape(fact)}</p>" for fact in facts)]
    body += [charts.headline(metrics), charts.parts(metrics), "<h2>Classes</h2>", charts.classes(metrics)]
    if metrics.confusion is not None and metrics.confusion.any():
        body += ["<h2>Confusions</h2>", charts.confusion(metrics.confusion, metrics.class_names)]
    if metrics.counts is not None:
        body += ["<h2>Segments by size</h2>", charts.sizes(metrics.counts.by_size)]
    if figures := [_figure(shown) for shown in pictures]:
        body += ["<h2>Worst and best pictures</h2>", _tools(), f"<div id=pictures class=pictures data-layer={FIRST}>"]
        body += [*figures, "</div>"]
    head = (
        f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{escape(title)}</title>"
        f'<meta http-equiv=Content-Security-Policy content="{_POLICY}"><link rel=icon href="data:,">'
    )
    head += f"<style>{_STYLE}</style>"
    body += [f"<script>{_SCRIPT}</script>"]
    return f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(body)}</body></html>\n"


def _tools() -> str:
    buttons = "".join(
        f"<button data-show={name} aria-pressed={str(name == FIRST).lower()} title='key {number}'>{name}</button>"
        for number, name in enumerate(LAYERS, start=1)
    )
    keys = "".join(
        f"<span><span class=key style='background:rgb{COLORS[kind]}'></span>{text}</span>"
        for kind, text in ERRORS.items()
    )
    search = "<input id=search type=search placeholder='picture or class' aria-label='picture or class'>"
    return f"<div class=tools>{buttons}{search}{keys}</div>"


def _figure(shown: Shown) -> str:
    images = "".join(
        f"<img class={name} alt='{name}' src='data:image/jpeg;base64,{_encoded(pixels)}'>"
        for name, pixels in shown.layers.items()
    )
    kind = "one of the best" if shown.is_best else "one of the worst"
    text = escape(" ".join([shown.name, *shown.classes, kind]).lower(), quote=True)
    caption = f"{escape(shown.name)}: {100 * shown.quality:.1f}, {kind}"
    return f"<figure data-text='{text}'>{images}<figcaption>{caption}</figcaption></figure>"


def _encoded(pixels: UInt8[np.ndarray, "_ _ 3"]) -> str:
    content = cv2.imencode(".jpg", pixels[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))[1].tobytes()
    return base64.b64encode(content).decode("ascii")
