"""The one place that prints: what comes from files, paths and specs is text, whatever it looks like.

Rich reads square brackets as markup, `:name:` as an emoji, and passes escape sequences on to the terminal. Names of
classes, folders and keys hold all of them, so none of it is read here, in lines, tables or bars. Passwords and
signatures in addresses are left out.
"""

import io
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.segment import Segment
from rich.text import Text

from oneformer_jax.data.storage.addresses import redacted
from oneformer_jax.data.storage.cache import Advance

WIDTH = 160
"""Of tables where no terminal says how wide it is."""

# Control characters as the pictures that Unicode has for them; a terminal would obey them.
_SHOWN = {
    **{code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
}


class Screen(Console):
    """Prints text as it is, a line however long it is in one line, and Rich's tables without wrapping lines around."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        lines = all(isinstance(item, str) for item in objects)
        super().print(*objects, **{"soft_wrap": lines} | options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(redacted(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(segment.text.translate(_SHOWN), segment.style)


def standard_output() -> Screen:
    """For results. What its encoding lacks, as part of a file's name may, is shown by its number."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    return Screen(width=None if sys.stdout.isatty() else WIDTH)


def standard_error() -> Screen:
    """For errors, and for bars that must not get between results."""
    return Screen(stderr=True)


@contextmanager
def told() -> Iterator[None]:
    """Inside, what the library tells its loggers is a line on the standard error, and goes to no other handler."""
    library = logging.getLogger("oneformer_jax")
    handler, before = _Lines(), library.propagate
    library.addHandler(handler)
    library.propagate = False  # packages that are imported give the root logger a handler that prints names of modules
    try:
        yield
    finally:
        library.propagate = before
        library.removeHandler(handler)


class _Lines(logging.Handler):
    """Prints each message once: what looks at a folder several times finds the same there."""

    def __init__(self) -> None:
        super().__init__()
        self._printed = set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        if (message := record.getMessage()) not in self._printed:
            self._printed.add(message)
            standard_error().print(f"warning: {message}", style="yellow")


def nothing() -> Screen:
    """Shows nothing."""
    return Screen(quiet=True)


def words(text: str) -> ProgressColumn:
    """A column of a bar that holds text: a format of the fields of its task."""
    return TextColumn(text, markup=False)


@contextmanager
def downloading(description: str, total: int | None) -> Iterator[Advance]:
    """A bar on the standard error for the bytes of a download or an archive."""
    columns = (words("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=standard_error(), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda position: bar.update(task, completed=position)
