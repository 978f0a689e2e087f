"""What is said while something takes long: what it is, for how long it goes on already, and how much of it is done."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from oneformer_jax.app.run.screen import words

SOON, EVERY = 5.0, 20.0
"""Seconds until the first line, and from one line to the next."""

Done = Callable[[int], None]
"""Gets how many are done."""

Aside = Callable[[], str]
"""What goes on beside it at the moment, "" for nothing."""


class Waiting:
    """Prints a line now and then, in a thread of its own, from `start` to `stop`; a context from one to the other."""

    def __init__(self, what: str, console: Console, total: int | None = None, aside: Aside = str) -> None:
        self._what, self._console, self._total, self._aside = what, console, total, aside
        self._stopped, self.done = threading.Event(), 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Waiting":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Nothing more is said afterwards."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        start, pause = time.monotonic(), SOON
        while not self._stopped.wait(pause):
            pause = EVERY
            elapsed = timedelta(seconds=round(time.monotonic() - start))
            count = "" if self._total is None else f" {self.done}/{self._total}"
            aside = self._aside()
            self._console.print(f"{self._what}:{count} {elapsed}{aside and f', {aside}'}")


class _AsideColumn(ProgressColumn):
    def __init__(self, aside: Aside) -> None:
        super().__init__()
        self._aside = aside

    def render(self, task: Task) -> Text:
        return Text(self._aside())


@contextmanager
def waiting(what: str, console: Console, total: int | None = None, aside: Aside = str) -> Iterator[Done]:
    """Says that `what` goes on inside, and what `aside` says: a bar on a terminal, elsewhere a line now and then.
    Yields a function for how many of `total` are done."""
    if not console.is_terminal:
        with Waiting(what, console, total, aside) as lines:
            yield lambda done: setattr(lines, "done", done)
        return
    counted = [] if total is None else [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    columns = [words("{task.description}"), *counted, TimeElapsedColumn(), _AsideColumn(aside)]
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
