"""What surrounds every command: errors as one message and an exit code."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from oneformer_jax.app.run.failures import explained


@contextmanager
def guarded() -> Iterator[Console]:
    """Turns what a person can meet into one message and an exit code; a defect keeps its traceback."""
    console = Console(width=None if sys.stdout.isatty() else 160)
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


def _leave_others(defect: Exception | None = None) -> None:
    """Ends the process here if it is one of several; `defect`: what nobody has printed yet."""
    if "oneformer_jax.training.distributed" in sys.modules:  # else it is alone
        from oneformer_jax.training.distributed import leave_the_others

        leave_the_others(1, defect)
