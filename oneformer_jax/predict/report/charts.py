"""The numbers of an evaluation as HTML and SVG: headline, classes, confusions, sizes."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Float64, Int64

from oneformer_jax.evaluation.evaluator import Metrics
from oneformer_jax.evaluation.metrics import SIZES
from oneformer_jax.evaluation.report import SCORES, class_scores, mean_scores, percent

NAMED_CELLS = 40
"""Classes up to which a matrix has names beside it."""
CONFUSIONS = 12
LEAST_SHARE, MOST_CELLS = 0.002, 5000
"""Of a row of the matrix, and cells of it: what is less, or beyond the largest, is left white."""


def headline(metrics: Metrics) -> str:
    """The scores over all classes; the first one of each task large."""
    means = mean_scores(metrics)
    groups = []
    for names in SCORES.values():
        known = [name for name in names if name in means]
        if known:
            rest = "".join(f"<span>{name.replace('_', ' ')} <b>{percent(means[name])}</b></span>" for name in known[1:])
            groups.append(f"<div class=score><em>{percent(means[known[0]])}</em> {known[0]}<p>{rest}</p></div>")
    return f"<div class=scores>{''.join(groups)}</div>"


def parts(metrics: Metrics) -> str:
    """The scores over all classes of each of several data sets, "" where there is one."""
    names = list(mean_scores(metrics))
    rows = []
    for name, part in metrics.parts.items():
        means = mean_scores(part)
        cells = "".join(f"<td class=n>{percent(means.get(score, math.nan))}</td>" for score in names)
        rows.append(f"<tr><td>{escape(name)}</td><td class=n>{part.num_images}</td>{cells}</tr>")
    heads = "".join(f"<th class=n>{name.replace('_', ' ')}</th>" for name in ("images", *names))
    table = f"<table><tr><th>data set</th>{heads}</tr>{''.join(rows)}</table>"
    return f"<h2>Data sets</h2><div class=wide>{table}</div>" if rows else ""


def classes(metrics: Metrics) -> str:
    """A row for each class, which the page sorts by any column."""
    rows = class_scores(metrics)
    columns = list(rows)
    share = None if metrics.confusion is None else metrics.confusion.sum(axis=1) / max(1, metrics.confusion.sum())
    lines = []
    for index, name in enumerate(metrics.class_names):
        cells = "".join(_bar(float(rows[column][index])) for column in columns)
        pixels = "" if share is None else _cell(f"{share[index]:.2%}", float(share[index]))
        lines.append(f"<tr><td>{escape(name)}</td>{cells}{pixels}</tr>")
    names = ["class", *columns, *([] if share is None else ["share of pixels"])]
    head = "".join(f"<th><button>{escape(name)}</button></th>" for name in names)
    table = f"<table class=sorts><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f"<div class=wide>{table}</div>"


def _bar(value: float) -> str:
    if math.isnan(value):
        return _cell("-", -1.0)
    return _cell(f"<i style='width:{4 * value:.2f}rem'></i>{percent(value)}", value)


def _cell(text: str, value: float) -> str:
    return f"<td class=n data-value='{value:.6f}'>{text}</td>"


def confusion(counts: Int64[np.ndarray, "k k"], names: Sequence[str]) -> str:
    """Of the pixels of each class that occurs (a row), which share was predicted as which; then the largest errors."""
    occurring = np.flatnonzero((counts.sum(axis=0) + counts.sum(axis=1)) > 0)
    counts, names = counts[np.ix_(occurring, occurring)], [names[index] for index in occurring.tolist()]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return f"<div class=beside>{_matrix(share, names)}{_largest(counts, share, names)}</div>"


def _matrix(share: Float64[np.ndarray, "k k"], names: Sequence[str]) -> str:
    count, named = len(names), len(names) <= NAMED_CELLS
    cell = 22 if named else max(3, 880 // count)
    left = 14 + 7 * min(19, max(map(len, names))) if named else 4
    cells = []
    least = max(LEAST_SHARE, float(np.sort(share, axis=None)[-MOST_CELLS:].min()))
    for row, column in np.argwhere(share >= least).tolist():
        value = float(share[row, column])
        told = escape(f"{names[row]} predicted as {names[column]}: {value:.1%}")
        kind = "right" if row == column else "wrong"
        cells.append(
            f"<rect class={kind} x={left + column * cell} y={left + row * cell} width={cell - 1} height={cell - 1} "
            f"fill-opacity={0.08 + 0.92 * value:.3f}><title>{told}</title></rect>"
        )
    labels = []
    for index, name in enumerate(names if named else ()):
        place, text = left + (index + 0.5) * cell, escape(name if len(name) < 19 else f"{name[:17]}...")
        labels.append(f"<text x={left - 5} y={place + 4} text-anchor=end>{text}</text>")
        labels.append(f"<text transform='translate({place + 4} {left - 5}) rotate(-90)'>{text}</text>")
    side = left + count * cell
    what = "Rows: annotated class. Columns: predicted class."
    return (
        f"<figure class=matrix style='flex-basis:{side}px'><svg viewBox='0 0 {side} {side}' role=img "
        f"aria-label='{what}'><rect class=ground x={left} y={left} width={count * cell} height={count * cell} />"
        f"{''.join(labels)}{''.join(cells)}</svg><figcaption>{what}</figcaption></figure>"
    )


def _largest(counts: Int64[np.ndarray, "k k"], share: Float64[np.ndarray, "k k"], names: Sequence[str]) -> str:
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    rows = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:CONFUSIONS].tolist():
        row, column = divmod(place, len(names))
        if wrong[row, column]:
            cells = f"<td>{escape(names[row])}</td><td>{escape(names[column])}</td>"
            rows.append(
                f"<tr>{cells}<td class=n>{share[row, column]:.1%}</td><td class=n>{wrong[row, column]:,}</td></tr>"
            )
    if not rows:
        return "<p>No pixel has a wrong class.</p>"
    head = "<tr><th>annotated</th><th>predicted as</th><th class=n>of its pixels</th><th class=n>pixels</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def sizes(by_size: Float64[np.ndarray, "3 3"]) -> str:
    """How many of the annotated segments of each size are found."""
    limits = [*SIZES.values()]
    texts = [f"below {limits[1]:,}", f"{limits[1]:,} to {limits[2]:,}", f"from {limits[2]:,} on"]
    rows = []
    for name, text, (found, missed, iou) in zip(SIZES, texts, by_size.tolist(), strict=True):
        total = found + missed
        mean = iou / found if found else math.nan
        cells = f"<td>{name}</td><td>{text} pixels</td><td class=n>{total:,.0f}</td><td class=n>{found:,.0f}</td>"
        rows.append(f"<tr>{cells}{_bar(found / total if total else math.nan)}{_bar(mean)}</tr>")
    heads = "".join(f"<th class=n>{name}</th>" for name in ("annotated", "found", "%", "their IoU"))
    return f"<table><tr><th>size</th><th></th>{heads}</tr>{''.join(rows)}</table>"
