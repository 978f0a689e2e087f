"""The trials on the screen: a live table on a terminal, elsewhere a line for each trial that ends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from oneformer_jax.app.automl.parameter import Parameter
from oneformer_jax.app.automl.study import Record, Study

STYLES = {"running": "cyan", "failed": "red", "stopped": "dim", "complete": ""}


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
        row = [f"{record.number}{' (spec)' * record.baseline}", record.state, str(record.epoch), short(record.score)]
        style = "bold" if best is not None and record.number == best.number else STYLES[record.state]
        table.add_row(*row, *(short(value) for value in record.values.values()), style=style)
    return table


@contextmanager
def shown(study: Study, metric: str, console: Console) -> Iterator[Callable[[], None]]:
    """Gives a function to call when something has changed."""
    if console.is_terminal:
        with Live(trials_table(study, metric), console=console, auto_refresh=False) as live:
            yield lambda: live.update(trials_table(study, metric), refresh=True)
        return
    reported = {record.number for record in study.records() if record.state != "running"}

    def report() -> None:
        for record in study.records():
            if record.state != "running" and record.number not in reported:
                reported.add(record.number)
                console.print(line(record, metric), highlight=False, markup=False, soft_wrap=True)

    yield report


def line(record: Record, metric: str) -> str:
    """A trial in a line."""
    values = "  ".join(f"{path.rpartition('.')[2]} {short(value)}" for path, value in record.values.items())
    score = f"{metric} {short(record.score)} after {record.epoch} epochs"
    return f"trial {record.number} {record.state}: {record.reason or score}; {values}"


def short(value: Any) -> str:
    """A value in few characters, - for none."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
