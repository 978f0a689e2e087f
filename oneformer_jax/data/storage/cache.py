"""Where data lies: a path as it is; an archive unpacked or an address fetched into the cache, once for each content.

An entry of the cache gets its name when it is complete and on the disk; until then it is called `....tmp`, and what has
come of a download `....part`. Processes that want the same entry wait for the one that makes it.
"""

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from oneformer_jax.data.storage import addresses
from oneformer_jax.data.storage.addresses import Listing, UnreachableError, explained, is_address, shown
from oneformer_jax.data.storage.archives import is_archive, unpack
from oneformer_jax.data.storage.folders import Spellings, is_hidden
from oneformer_jax.errors import DISK_FULL, DataError

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "ONEFORMER_CACHE_DIR"
LARGE = 100 * 2**20  # bytes from which on work is announced where no bar can be drawn

Advance = Callable[[int], None]
"""Gets the bytes that are done."""
Bar = Callable[[str, int | None], AbstractContextManager[Advance]]
"""Shows work while it lasts: its description, and its bytes where they are known."""


NO_HOME = "/dev/null"  # in which nobody, not even root, can make a folder
_told: set[Path] = set()


def ensure_home() -> None:
    """Names a home folder where neither HOME nor the system's list of users does: libraries fail without a name, while
    they go on without a folder."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = NO_HOME


def cache_folder() -> Path:
    """Where everything is kept that can be made again."""
    ensure_home()
    chosen = os.environ.get(CACHE_VARIABLE)
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "oneformer_jax"
    return (Path(chosen) if chosen else default).expanduser()


def optional_cache(folder: Path) -> Path | None:
    """A folder for what is quicker with a cache and right without it; None, which is said once, where nothing can be
    kept there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        reason = os.strerror(errno.EACCES)
    except OSError as error:
        reason = error.strerror or str(error)
    if folder.parent not in _told:
        _told.add(folder.parent)
        hint = f"{CACHE_VARIABLE} can name another folder"
        logger.warning("nothing is kept for later runs in %s: %s; %s", folder.parent, reason, hint)
    return None


def local_path(location: str, *, what: str) -> Path:
    """The file or folder that `location` means: a path, an archive, or the address of a file, archive or folder.

    Archives (local or not) stand for the folder of their files. `what` is the key that says `location`, for messages.
    Raises DataError: not there, not accessible, damaged, unsafe, or no room for it.
    """
    with _located(f"{what}: {shown(location)}"):
        if is_address(location):
            return _fetched(location, unpacked=True)
        path = Path(os.path.expanduser(location))
        found = Spellings().find(path)
        if found is None:
            raise DataError("no such file or folder")
        path = found
        return _unpacked(path) if path.is_file() and is_archive(path.name) else path


def local_folder(location: str, *, what: str) -> Path:
    """Like `local_path`; raises DataError where that is a file."""
    path = local_path(location, what=what)
    if not path.is_dir():
        hint = "give a folder, an archive (.tar.gz, .zip) or the address of either"
        raise DataError("this is a file, not a folder", where=f"{what}: {shown(location)}", hint=hint)
    return path


def local_file(location: str, *, what: str, suffix: str) -> Path:
    """Like `local_path`; a folder or archive stands for the one file with this suffix that it holds."""
    path = local_path(location, what=what)
    if path.is_file():
        return path
    found = sorted(f for f in path.rglob(f"*{suffix}") if f.is_file() and not is_hidden(f.relative_to(path)))
    if len(found) != 1:
        names = "".join(f", {file.relative_to(path)}" for file in found[:3])
        wrong = f"contains {len(found)} files {suffix}, but exactly one is needed{names}"
        raise DataError(wrong, where=f"{what}: {shown(location)}", hint="give the address or path of the file")
    return found[0]


def fetch_file(address: str) -> Path:
    """The local copy of the file at an address, not unpacked whatever it is called. Raises DataError."""
    with _located(shown(address)):
        return _fetched(address, unpacked=False)


@contextmanager
def _located(where: str) -> Iterator[None]:
    """Adds where to a DataError, and makes one of what goes wrong on the disk."""
    try:
        yield
    except DataError as error:
        place = f"{where}: {error.where}" if error.where else where
        raise DataError(error.what, where=place, hint=error.hint) from error
    except OSError as error:
        hint = f"the cache is in {cache_folder()}; {CACHE_VARIABLE} can name another folder"
        raise DataError(f"cannot be stored or unpacked: {error}", where=where, hint=hint) from error


def _fetched(address: str, *, unpacked: bool) -> Path:
    """What is at an address now, from the cache where that holds it; what was there last where no server answers."""
    name = addresses.file_name(address)
    kind = "unpacked" if unpacked and is_archive(name) else ""
    place = shown(address).partition("?")[0].rstrip("/")
    newest = cache_folder() / "newest" / _entry(name, kind, address).name  # a link to what was last found there
    try:
        with explained(address):
            listing = addresses.look_up(address)
    except UnreachableError as error:
        if not newest.is_dir():
            raise
        print(f"{shown(address)}: {error.what}; using what was there when it was last fetched", file=sys.stderr)
        return newest.resolve() if kind or not (newest / name).is_file() else newest.resolve() / name
    is_packed = bool(kind) and not listing.is_folder
    versions = [f"{file.name}: {file.version}" for file in listing.files]
    entry = _entry(name, kind if is_packed else "", place, *versions)
    part = _beside(entry, ".part")
    is_known = all(file.version for file in listing.files)
    if not is_known:  # only the content says whether it has changed
        entry.parent.mkdir(parents=True, exist_ok=True)
        with _locked(_beside(entry, ".lock")):
            _remove(part)
            _download(listing, part, address)
            entry = _entry(name, kind if is_packed else "", place, _digest(part))
            part = part.rename(_beside(entry, ".part"))

    def make(folder: Path) -> None:
        if is_known:
            _download(listing, part, address)
        if not is_packed:
            part.rename(folder if listing.is_folder else folder / name)
            return
        try:
            _unpack(part, folder, name)
        except Exception:  # it is complete and yet no good, or the disk is full
            part.unlink()
            raise
        part.unlink()

    _once(entry, make)
    _remove(part)  # of content that was there before
    _link(newest, entry)
    return entry if is_packed or listing.is_folder else entry / name


def _digest(path: Path) -> str:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path)}\n".encode(errors="surrogateescape"))
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    fresh = _beside(link, f".{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(os.path.relpath(target, link.parent))
    fresh.replace(link)


def _download(listing: Listing, part: Path, address: str) -> None:
    download = addresses.download_folder if listing.is_folder else addresses.download
    try:
        if (listing.size or 0) > shutil.disk_usage(part.parent).free + _size(part):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with explained(address), _bar(f"fetching {shown(address)}", listing.size) as progress:
            download(listing, part, progress)
    except OSError as error:
        if error.errno in DISK_FULL:
            _remove(part)
        raise


def _unpacked(archive: Path) -> Path:
    facts = archive.stat()
    entry = _entry(archive.name, str(archive.resolve()), str(facts.st_size), str(facts.st_mtime_ns))
    return _once(entry, lambda folder: _unpack(archive, folder, archive.name))


def _unpack(archive: Path, folder: Path, name: str) -> None:
    with _bar(f"unpacking {name}", archive.stat().st_size) as progress:
        unpack(archive, folder, progress)


def _entry(name: str, *identity: str) -> Path:
    digest = hashlib.sha256("\n".join(identity).encode(errors="surrogateescape")).hexdigest()
    return cache_folder() / "data" / f"{name}-{digest[:16]}"


def _beside(entry: Path, suffix: str) -> Path:
    return entry.with_name(entry.name + suffix)


def _once(entry: Path, make: Callable[[Path], None]) -> Path:
    """The folder `entry`; where there is none yet, `make` fills it under another name."""
    if entry.is_dir():
        return entry
    entry.parent.mkdir(parents=True, exist_ok=True)
    with _locked(_beside(entry, ".lock")):
        if entry.is_dir():
            return entry
        unfinished = _beside(entry, ".tmp")
        _remove(unfinished)
        unfinished.mkdir()
        try:
            make(unfinished)
            os.sync()  # a name that survives a power failure must not outlive what it names
            unfinished.rename(entry)
        finally:
            _remove(unfinished)
    return entry


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one process at a time; the operating system releases it when that ends, however it does."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process: {path.stem}", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # a file system without locks
            raise OSError(error.errno, error.strerror, str(path)) from error
        yield


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def announced(description: str, total: int | None) -> Iterator[Advance]:
    """One line on the standard error for work on `LARGE` files."""
    if total is not None and total >= LARGE:
        print(f"{description} ({total / 1e9:.1f} GB)", file=sys.stderr)
    yield lambda position: None


_bar: Bar = announced


def show_progress_with(bar: Bar) -> None:
    """From now on `bar` shows how far downloads and archives have come, in place of `announced`."""
    global _bar
    _bar = bar
