"""Files appear whole or not at all: written aside, put on the disk, and only then given their names.

All that this project writes as a whole is written here; logs, to which lines are added, are not. What is killed in the
middle leaves a hidden folder `.*.unfinished`, which the next run in that folder removes.
"""

import errno
import fcntl
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from oneformer_jax.errors import DISK_FULL, OneFormerError

UNFINISHED = ".unfinished"
_REPLACED = ".replaced"
_MANY = 50  # files, for which one call for the whole disk is quicker than one for each
_STREAMS = ("/dev/std", "/dev/fd/", "/dev/null", "/proc/")
_HINTS = {
    **dict.fromkeys(DISK_FULL, "free disk space, then run the same command again; what was there before is unchanged"),
    errno.EFBIG: "free disk space, or lift the limit on sizes of files (`ulimit -f`), then run the same command again; "
    "what was there before is unchanged",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "choose a folder that you can write to"),
    errno.EISDIR: "a folder stands where a file belongs: move it away, or name another place",
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTDIR), "a file stands where a folder belongs: move it away, or name another place"
    ),
}


def advice(code: int | None) -> str:
    """What to do about an OSError of this number that concerns the disk, "" for others."""
    return _HINTS.get(code or 0, "")


@contextmanager
def appearing_in(folder: Path, name: str = "") -> Iterator[Path]:
    """A new, hidden folder whose entries take their places in `folder` together when the block ends, also over entries
    of the same names; whatever fails before leaves `folder` as it was. `name`: the entry that matters, for messages;
    it appears last.

    Raises OneFormerError, naming the file, where the disk is full or the folder cannot be written.
    """
    made, placed = not folder.exists(), False
    with _explained(folder, name):
        folder.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=folder, prefix=".", suffix=UNFINISHED))
    try:
        with _explained(folder, name, fresh):
            yield fresh
        with _explained(folder, name):
            _to_disk(fresh)
            _put_in_place(fresh, folder, name)
        placed = True
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if made and not placed:
            with suppress(OSError):  # others have put something there
                folder.rmdir()


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder that becomes `folder`, which must not be there or be empty, in one step when the block ends:
    whatever stops it, by whatever signal, before that leaves nothing under that name. Of two processes one fails.

    Removes what killed processes have left beside it. A folder that nothing can be renamed to, such as a mounted disk,
    gets its entries as by `appearing_in`. Raises OneFormerError, naming the file, as that does, and where `folder` has
    been filled meanwhile.
    """
    folder = folder.resolve()
    is_fixed = folder.is_mount() or folder == Path.cwd() or not os.access(folder.parent, os.W_OK | os.X_OK)
    if folder.is_dir() and is_fixed:
        with appearing_in(folder) as fresh:
            yield fresh
        return
    with _explained(folder, ""):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{glob.escape(folder.name)}.*{UNFINISHED}"):
            if _is_folder(left) and (lock := _lock_of(left)) is not None:  # nobody works there any more
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)
        fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=UNFINISHED))
        lock = _lock_of(fresh)
    try:
        with _explained(folder, "", fresh):
            yield fresh
        with _explained(folder, ""):
            _to_disk(fresh)
            mask = os.umask(0)
            os.umask(mask)
            fresh.chmod(0o777 & ~mask)
            try:
                fresh.rename(folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY, errno.ENOTDIR):
                    raise
                hint = "give a folder that does not exist yet"
                raise OneFormerError(
                    "something is there by now, expected an empty folder or none", where=str(folder), hint=hint
                ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _lock_of(folder: Path) -> int | None:
    """A descriptor that holds the lock of a folder until it is closed; None where somebody else has it, or no process
    can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def write_bytes(path: Path, content: bytes) -> None:
    """Creates or replaces a file in one step: a reader sees the old content or the new one. Raises as `appearing_in`.

    A link stays one: what it leads to is replaced. A pipe or a device is written to.
    """
    if str(path).startswith(_STREAMS) or path.is_fifo():
        path.write_bytes(content)
        return
    path = path.resolve() if path.is_symlink() else path
    with appearing_in(path.parent, path.name) as fresh:
        (fresh / path.name).write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any, *, indent: int | None = 2) -> None:
    """Strict JSON, whose numbers are finite; see `write_bytes`."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def remove_unfinished(folder: Path) -> None:
    """Removes what processes that are no more were writing there; what one of them was giving its names gets them.
    Nobody else may be writing."""
    for path in folder.glob(f".*{UNFINISHED}"):
        if (path / _REPLACED).is_dir():  # the new entries are complete, and the old ones perhaps gone
            for entry in path.iterdir():
                if entry.name != _REPLACED:
                    if os.path.lexists(folder / entry.name):
                        (folder / entry.name).rename(path / _REPLACED / entry.name)
                    entry.rename(folder / entry.name)
        shutil.rmtree(path, ignore_errors=True)


def _put_in_place(fresh: Path, folder: Path, last: str) -> None:
    entries = sorted(fresh.iterdir(), key=lambda entry: entry.name == last)
    for entry in entries:
        if _is_folder(folder / entry.name) and not _is_folder(entry):
            what, hint = "a folder stands where a file is to be written", "remove it, or name another file"
            raise OneFormerError(what, where=str(folder / entry.name), hint=hint)
    if len(entries) == 1 and not (folder / entries[0].name).is_dir():
        entries[0].replace(folder / entries[0].name)
        return
    # What is replaced goes first, so that nobody sees new files beside old ones, and comes back if that fails.
    aside = fresh / _REPLACED
    aside.mkdir()
    try:
        for entry in entries:
            if os.path.lexists(folder / entry.name):
                (folder / entry.name).rename(aside / entry.name)
        for entry in entries:
            entry.rename(folder / entry.name)
    except BaseException:
        for entry in entries:
            if not os.path.lexists(entry):
                (folder / entry.name).rename(entry)
        for old in aside.iterdir():
            old.rename(folder / old.name)
        raise


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _to_disk(folder: Path) -> None:
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    if len(paths) > _MANY:
        os.sync()
        return
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())


@contextmanager
def _explained(folder: Path, name: str, fresh: Path | None = None) -> Iterator[None]:
    """Makes a OneFormerError of what the system says about the disk. With `fresh`, what concerns no file in there is
    left as it is. Some libraries, such as ArrayRecord's, raise RuntimeError with the words of the system."""
    try:
        yield
    except OneFormerError as error:
        if fresh is None or not error.where.startswith(f"{fresh}{os.sep}"):
            raise
        place = folder / Path(error.where).relative_to(fresh)  # of what was written into it as a whole
        raise type(error)(error.what, where=str(place), hint=error.hint) from error
    except (OSError, RuntimeError) as error:
        code, file = getattr(error, "errno", None), str(getattr(error, "filename", None) or "")
        code = code or next((code for code in DISK_FULL if os.strerror(code) in str(error)), None)
        place = folder / name
        if fresh is not None:
            if file.startswith(f"{fresh}{os.sep}"):
                place = folder / Path(file).relative_to(fresh)
            elif code not in DISK_FULL:
                raise
        # A file where a folder is to be made exists, which is not what is wrong with it.
        reason = os.strerror(errno.ENOTDIR if code == errno.EEXIST else code) if code else str(error)
        raise OneFormerError(f"the file cannot be written: {reason}", where=str(place), hint=advice(code)) from error
