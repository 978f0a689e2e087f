"""What lies in folders: no litter of operating systems, and files by their names however Unicode spells them.

One rule for folders, archives and addresses. `.DS_Store`, `._x.png` (AppleDouble), `Thumbs.db` and the like are no data
anywhere. Hidden files and folders, whose names begin with a dot, are no data where folders are searched; something that
names them finds them.

An accented letter is one character (NFC: Linux, Windows, most JSON) or two (NFD: what macOS writes to archives and to
some disks). The names are equal to whoever reads them, and different to the file system.
"""

import logging
import os
import unicodedata
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path, PurePath

from oneformer_jax.errors import DataError

logger = logging.getLogger(__name__)

_LITTER = frozenset(
    {
        "__macosx",
        ".ds_store",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
        "$recycle.bin",
        "system volume information",
        "@eadir",  # thumbnails of Synology's disks
        "lost+found",
    }
)


def is_litter(path: PurePath) -> bool:
    """Whether a part of the path is what an operating system adds to folders and archives."""
    return any(_is_litter(part) for part in path.parts)


def is_hidden(path: PurePath) -> bool:
    """Whether a part of the path begins with a dot, or is litter."""
    return any(_is_hidden(part) for part in path.parts)


def entries(folder: Path) -> list[Path]:
    """What the folder shows, sorted by name. Raises OSError."""
    return sorted(path for path in folder.iterdir() if not _is_hidden(path.name))


def innermost(folder: Path, *, named: Iterable[str] = ()) -> Path:
    """The folder, or the one that it holds if it shows nothing else, and so on; one of the names `named` is not
    entered. Raises OSError."""
    kept = {_composed(name) for name in named}
    while True:
        with os.scandir(folder) as found:
            shown = list(islice((entry for entry in found if not _is_hidden(entry.name)), 2))
        if len(shown) != 1 or not shown[0].is_dir() or _composed(shown[0].name) in kept:
            return folder
        folder = Path(shown[0].path)


LeftOut = Callable[[DataError], None]
"""Gets what is wrong with something that is left out."""


def files_below(folder: Path, suffixes: frozenset[str], left_out: LeftOut | None = None) -> list[PurePath]:
    """The paths of files with these suffixes below a folder, relative to it and sorted; links are followed, hidden
    files and folders are left out. What is no file, or cannot be looked into, is left out and said to `left_out`, else
    in a warning."""
    found: list[PurePath] = []
    others: list[DataError] = []
    seen = set[str]()

    def locked(error: OSError) -> None:
        others.append(DataError(error.strerror or type(error).__name__, where=str(error.filename)))

    for place, folders, names in os.walk(folder, followlinks=True, onerror=locked):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        real = os.path.realpath(place)
        if real in seen:  # a link back to where it lies
            folders.clear()
            continue
        seen.add(real)
        inner = PurePath(place).relative_to(folder)
        for name in names:
            if os.path.splitext(name)[1].lower() not in suffixes or _is_hidden(name):
                continue
            if os.path.isfile(os.path.join(place, name)):
                found.append(inner / name)
            else:
                others.append(DataError("it is no file", where=os.path.join(place, name)))
    if left_out is not None:
        for error in others:
            left_out(error)
    elif others:
        told = ", ".join(f"{os.path.relpath(error.where, folder)} ({error.what})" for error in others[:3])
        told += ", ..." if len(others) > 3 else ""
        logger.warning("%s: %d left out that cannot be read: %s", folder, len(others), told)
    return sorted(found)


class Spellings:
    """Finds paths in whichever normal form their parts are spelled; an exact name goes first. Each folder is listed
    once, which is cheaper than a question for every file: the object is for one search of many files."""

    def __init__(self) -> None:
        self._names: dict[Path, dict[str, str]] = {}

    def find(self, path: Path) -> Path | None:
        """The path as the disk spells it; None where there is nothing."""
        names, wanted = self._listed(path.parent), path.name
        if found := names.get(wanted) or names.get(_composed(wanted)):
            return path.parent / found
        exists = os.path.exists(path)  # Path.exists raises where a name is longer than any can be
        if path.parent == path or exists:  # the root, or in a folder that does not let itself be listed
            return path if exists else None
        parent = self.find(path.parent)
        return None if parent in (None, path.parent) else self.find(parent / wanted)

    def _listed(self, folder: Path) -> dict[str, str]:
        if folder not in self._names:
            try:
                names = os.listdir(folder)
            except OSError:
                names = []
            self._names[folder] = {_composed(name): name for name in names} | {name: name for name in names}
        return self._names[folder]


def _is_litter(name: str) -> bool:
    return name.startswith("._") or name.casefold() in _LITTER


def _is_hidden(name: str) -> bool:
    return _is_litter(name) or (name.startswith(".") and name != "..")


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)
