"""A page of plots: how the score came about, which keys matter, and where the good trials lie."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from oneformer_jax.app.automl.parameter import Choice, Parameter
from oneformer_jax.app.automl.study import Record, Study
from oneformer_jax.app.automl.table import short

COLOURS = "viridis"
MARKERS = {"complete": ("o", "tab:blue"), "stopped": ("v", "tab:grey"), "failed": ("x", "tab:red")}


def draw_page(study: Study, metric: str, path: Path) -> None:
    """History, importance and parallel coordinates as one picture."""
    records = [record for record in study.records() if record.state != "running"]
    figure = Figure(figsize=(12, 8), layout="constrained")
    panels = figure.subplot_mosaic([["history", "importance"], ["parallel", "parallel"]], width_ratios=[3, 2])
    _history(panels["history"], records, metric, study.settings.sign)
    _importance(panels["importance"], study.importance())
    scored = [record for record in records if record.score is not None and record.state != "failed"]
    _parallel(panels["parallel"], study.parameters, scored, metric, study.settings.sign)
    figure.savefig(path, dpi=110)


def _history(axes: Axes, records: Sequence[Record], metric: str, sign: int) -> None:
    scored = [record for record in records if record.score is not None]
    for state, (marker, colour) in MARKERS.items():
        points = [(record.number, record.score) for record in scored if record.state == state]
        if points:
            axes.plot(*zip(*points, strict=True), marker, color=colour, label=state)
    without = [record.number for record in records if record.score is None]
    if without:  # at the lower edge, whatever the scores are
        edge = axes.get_xaxis_transform()
        axes.plot(without, [0.02] * len(without), "x", color="tab:red", transform=edge, label="failed, no score")
    complete = [record for record in scored if record.state == "complete"]
    if complete:
        best = sign * np.maximum.accumulate([sign * (record.score or 0.0) for record in complete])
        numbers = [*(record.number for record in complete), records[-1].number]
        axes.step(numbers, [*best, best[-1]], where="post", color="tab:orange", label="best so far")
    axes.set(title="history", xlabel="trial", ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.lines:
        axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def _importance(axes: Axes, importance: dict[str, float]) -> None:
    axes.set(title="importance (PED-ANOVA)")
    if not importance:
        axes.text(0.5, 0.5, "needs four finished trials", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    names = sorted(importance, key=lambda name: importance[name])
    bars = axes.barh([name.rpartition(".")[2] for name in names], [importance[name] for name in names])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(xlim=(0, 1.2 * max(max(importance.values()), 1e-9)), xlabel="share")


def _parallel(axes: Axes, parameters: Sequence[Parameter], records: Sequence[Record], metric: str, sign: int) -> None:
    """A line a trial through its values, every key scaled to the height of the panel; the best trials are on top."""
    axes.set(title="values of the trials (stopped trials dashed)", ylim=(-0.06, 1.06), yticks=[])
    columns = range(len(parameters))
    axes.set_xticks(list(columns), [parameter.path for parameter in parameters], fontsize=9)
    axes.set_xlim(-0.4, len(parameters) - 0.6)
    for column, parameter in zip(columns, parameters, strict=True):
        axes.axvline(column, color="black", linewidth=0.8)
        for height, label in _ticks(parameter):
            axes.text(column + 0.01, height, label, fontsize=8, va="center", zorder=10, bbox=_LABEL)
    if not records:
        return
    scores = [record.score or 0.0 for record in records]
    scale = Normalize(min(scores), max(scores))
    palette = colormaps[COLOURS if sign > 0 else f"{COLOURS}_r"]
    for record in sorted(records, key=lambda record: sign * (record.score or 0.0)):
        heights = [_height(parameter, record.values[parameter.path]) for parameter in parameters]
        style = "--" if record.state == "stopped" else "-"
        axes.plot(columns, heights, style, color=palette(scale(record.score or 0.0)), linewidth=1.6, alpha=0.85)
    axes.figure.colorbar(ScalarMappable(scale, palette), ax=axes, label=metric, pad=0.01)


_LABEL = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}


def _height(parameter: Parameter, value: object) -> float:
    """Where on its axis, from 0 to 1, a value lies; the spec's own value may lie outside the range: at its end then."""
    if isinstance(parameter, Choice):
        index = parameter.options.index(value) if value in parameter.options else 0
        return index / max(len(parameter.options) - 1, 1)
    assert isinstance(value, int | float)
    low, high, at = float(parameter.low), float(parameter.high), float(parameter.nearest(value))
    if parameter.log:
        low, high, at = math.log(low), math.log(high), math.log(at)
    return 0.5 if high == low else (at - low) / (high - low)


def _ticks(parameter: Parameter) -> list[tuple[float, str]]:
    if isinstance(parameter, Choice):
        return [(_height(parameter, option), short(option)) for option in parameter.options]
    low, high = float(parameter.low), float(parameter.high)
    middle = math.sqrt(low * high) if parameter.log else (low + high) / 2
    return [(height, short(value)) for height, value in ((0.0, low), (0.5, middle), (1.0, high))]
