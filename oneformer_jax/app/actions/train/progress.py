"""What a training shows on the screen: its progress, and how the optimizer treats each part of the model."""

import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from oneformer_jax.training.optimizer import ParameterGroup


class TrainingProgress:
    """A bar with the numbers of the last step (a `training.logbook.Reporter`); a line each where there is no terminal.

    As a context it shows the bar while it lasts.
    """

    def __init__(self, console: Console, *, total_steps: int, start_step: int) -> None:
        self._console, self._total = console, total_steps
        self._first: tuple[int, float] | None = None  # step and time of the first report, which includes compilation
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            refresh_per_second=2,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("train", total=total_steps, completed=start_step, numbers="")

    def __enter__(self) -> "TrainingProgress":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def step(self, step: int, scalars: Mapping[str, float], images_per_second: float) -> None:
        """`step` updates are done."""
        numbers = f"loss {scalars['loss']:.3f}  lr {scalars['lr']:.2e}  {images_per_second:.1f} images/s"
        if self._first is None:
            self._first = (step, time.monotonic())
        elif step > self._first[0]:
            seconds_per_step = (time.monotonic() - self._first[1]) / (step - self._first[0])
            numbers += f"  ETA {_duration(seconds_per_step * (self._total - step))}"
        self._progress.update(self._task, completed=step, numbers=numbers)
        if not self._console.is_terminal:
            self._console.print(f"step {step}/{self._total}  {numbers}", highlight=False)

    def message(self, text: str) -> None:
        """One line above the bar."""
        self._console.print(text, highlight=False)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def groups_table(groups: Sequence[ParameterGroup], lr: float) -> Table:
    """How the optimizer treats each part of the model, at its largest learning rate `lr`."""
    table = Table("part", "learning rate", "weight decay", "arrays", "parameters", title="optimizer")
    for group in groups:
        rate = f"{group.lr * lr:.3g}" if group.lr else "frozen"
        table.add_row(group.part, rate, f"{group.weight_decay:g}", str(group.arrays), f"{group.parameters:,}")
    return table
