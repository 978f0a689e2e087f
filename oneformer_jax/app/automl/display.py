"""A study as people see it: tables on the screen, and a page of plots: how the score came about, which keys matter, and
where the good trials lie."""

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.table import Table

from oneformer_jax.app.automl.parameter import Choice, Parameter
from oneformer_jax.app.automl.study import Record, Study
from oneformer_jax.writing import write_bytes

STYLES = {"running": "cyan", "failed": "red", "stopped": "dim", "complete": ""}
COLOURS = "viridis"
MARKERS = {"complete": ("o", "tab:blue"), "stopped": ("v", "tab:grey"), "failed": ("x", "tab:red")}


def space_table(parameters: tuple[Parameter, ...], base: dict[str, Any]) -> Table:
    """The searched keys, their ranges and the spec's own values."""
    table = Table("key", "searched", "spec", title="search space")
    for parameter in parameters:
        table.add_row(parameter.path, parameter.describe(), short(base[parameter.path]))
    return table


def trials_table(study: Study, metric: str) -> Table:
    """All trials that have begun; the best one in bold."""
    records, best = study.records(), study.best()
    table = Table("trial", "", "epochs", metric, title=f"{len(records)} of {study.settings.max_trials} trials")
    for parameter in study.parameters:
        table.add_column(parameter.path.rpartition(".")[2], justify="right")
    for record in records:
        row = [f"{record.number}{' (spec)' * record.baseline}", record.state, str(record.epochs), short(record.score)]
        style = "bold" if best is not None and record.number == best.number else STYLES[record.state]
        table.add_row(*row, *(short(value) for value in record.values.values()), style=style)
    return table


def line(record: Record, metric: str) -> str:
    """A trial in a line."""
    values = "  ".join(f"{path.rpartition('.')[2]} {short(value)}" for path, value in record.values.items())
    score = f"{metric} {short(record.score)} after {record.epochs} epochs"
    return f"trial {record.number} {record.state}: {record.reason or score}; {values}"


def short(value: Any) -> str:
    """A value in few characters, - for none."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def draw_page(study: Study, metric: str, path: Path) -> None:
    """History, importance and parallel coordinates as one picture."""
    with rc_context({"text.parse_math": False}):  # names and values with a dollar are no formulas
        _draw_page(study, metric, path)


def _draw_page(study: Study, metric: str, path: Path) -> None:
    records = [record for record in study.records() if record.state != "running"]
    figure = Figure(figsize=(12, 8), layout="constrained")
    panels = figure.subplot_mosaic([["history", "importance"], ["parallel", "parallel"]], width_ratios=[3, 2])
    _history(panels["history"], records, metric, study.settings.sign)
    _importance(panels["importance"], study.importance())
    scored = [record for record in records if record.score is not None and record.state != "failed"]
    _parallel(panels["parallel"], study.parameters, scored, metric, study.settings.sign)
    picture = BytesIO()
    figure.savefig(picture, dpi=110)
    write_bytes(path, picture.getvalue())


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
    return 0.5 if parameter.high == parameter.low else parameter.share(parameter.nearest(value))


def _ticks(parameter: Parameter) -> list[tuple[float, str]]:
    if isinstance(parameter, Choice):
        return [(_height(parameter, option), short(option)) for option in parameter.options]
    low, high = float(parameter.low), float(parameter.high)
    middle = math.sqrt(low * high) if parameter.log else (low + high) / 2
    return [(height, short(value)) for height, value in ((0.0, low), (0.5, middle), (1.0, high))]
