"""What surrounds every command: errors as one message and an exit code."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from oneformer_jax.app.run.failures import explained
from oneformer_jax.data.storage.cache import Advance, show_progress_with


@contextmanager
def guarded() -> Iterator[Console]:
    """Turns what a person can meet into one message and an exit code; a defect keeps its traceback."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    if sys.stderr.isatty():
        show_progress_with(_bar)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield console
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted", style="red")
        raise typer.Exit(128 + signal.SIGINT) from None
    except typer.Exit:
        raise
    except Exception as error:
        known = explained(error)
        if known is None:
            _leave_others(error)
            raise
        Console(stderr=True).print(f"error: {known}", style="red", markup=False, highlight=False, soft_wrap=True)
        _leave_others()
        raise typer.Exit(1) from None


@contextmanager
def _bar(description: str, total: int | None) -> Iterator[Advance]:
    """The progress of a download or an archive."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda position: bar.update(task, completed=position)


def _leave_others(defect: Exception | None = None) -> None:
    """Ends the process here if it is one of several; `defect`: what nobody has printed yet."""
    if "oneformer_jax.training.distributed" in sys.modules:  # else it is alone
        from oneformer_jax.training.distributed import leave_the_others

        leave_the_others(1, defect)
