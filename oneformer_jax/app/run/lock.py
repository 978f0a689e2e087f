"""One process at a time works in a result folder."""

import errno
import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from oneformer_jax.errors import OneFormerError

NAME = ".lock"
WITHOUT_LOCKS = (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS)


class FolderInUseError(OneFormerError):
    """Another process works in this result folder."""


@contextmanager
def only_process_in(folder: Path) -> Iterator[None]:
    """Holds the folder's lock file, which the system gives free however this process ends.

    Raises FolderInUseError that names the process which holds it, OSError when the file cannot be opened. A file system
    without locks is used without one.
    """
    with (folder / NAME).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise FolderInUseError(
                f"in use by {file.read().strip() or 'another process'}",
                where=str(folder),
                hint="wait until it ends, stop it, or use another results_dir",
            ) from None
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
        _name_holder(file.fileno(), f"process {os.getpid()} on {platform.node()}\n")
        try:
            yield
        finally:
            _name_holder(file.fileno(), "")


def holder(folder: Path) -> str:
    """The process that holds the folder's lock file, "" where none does: what a dead one has left there is not held."""
    path = folder / NAME
    name = path.read_text() if path.is_file() else ""
    if not name:
        return ""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return name.strip()
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
    return ""


def _name_holder(descriptor: int, text: str) -> None:
    with suppress(OSError):  # a full disk: the lock holds without a name
        os.ftruncate(descriptor, 0)
        os.write(descriptor, text.encode())
