"""Unpacks tar and zip archives that nobody vouches for: nothing leaves the folder, and the size has a limit."""

import bz2
import errno
import gzip
import io
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from oneformer_jax.data.storage.folders import is_litter
from oneformer_jax.errors import DataError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
LIMIT_VARIABLE = "ONEFORMER_ARCHIVE_LIMIT_GB"

MOST_GROWTH = 100  # images hardly shrink in an archive, annotations to a tenth: what grows more was made to do so
ALWAYS_ALLOWED = 2**30
LEFT_FREE = 0.05  # of the free disk, for whoever else writes to it
DISK_BLOCK = 4096  # an empty file takes its place too
TAR_BLOCK = 512
LARGEST_READ = 2**20
MOST_HEADERS = 2**28  # what a tar file has besides the files

_DECOMPRESSION: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    RuntimeError,  # zipfile: a password is needed, or (NotImplementedError) the compression is unknown
)
# None: gzip and bz2. EINVAL: a place before the start. The others: names that are too long or contradict each other.
_DAMAGE_NUMBERS = (None, errno.EINVAL, errno.ENAMETOOLONG, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)


@dataclass(frozen=True)
class Member:
    """One entry of an archive, whatever its format. `target` is where a link points, `open` gives a file's content."""

    name: str
    kind: Literal["file", "folder", "symbolic link", "hard link", "device"]
    target: str = ""
    open: Callable[[], IO[bytes]] = io.BytesIO


def is_archive(name: str) -> bool:
    """Whether a file of this name is taken for an archive."""
    return name.lower().endswith(SUFFIXES)


def inside(folder: Path, name: str) -> Path:
    """The path that `name` has in `folder`. Raises DataError if it is absolute or leads out of the folder."""
    relative = PurePosixPath(name.replace("\\", "/"))
    if relative.is_absolute() or ".." in relative.parts:
        raise _unsafe(f"{name!r} would be written outside the folder")
    return folder / relative


def unpack(archive: Path, folder: Path, progress: Callable[[int], object] = lambda position: None) -> None:
    """Writes the files of `archive` into the empty folder `folder`; `progress` hears how many bytes of it are read.

    The format is recognised from the content, not the name. Links must lead to something inside the folder; litter of
    operating systems is left out; owners and permissions are not taken over. Raises DataError for an archive that is
    damaged, cut short, too large when unpacked or that holds anything unsafe, and OSError as the disk does. The caller
    removes what was written until then.
    """
    allowance = _Allowance.of(archive, folder)
    links: list[tuple[Path, str]] = []
    try:
        with archive.open("rb") as raw:
            for member in _members(raw, allowance.limit):
                path = inside(folder, member.name)
                if is_litter(path.relative_to(folder)):
                    continue
                if member.kind == "symbolic link":
                    links.append((path, member.target))
                else:
                    _write(member, path, folder, allowance)
                progress(raw.tell())
        _link_all(links, folder)  # only now: no file can be written through a link
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _DAMAGE_NUMBERS:
            raise
        what = str(error) or type(error).__name__
        raise DataError(f"damaged, incomplete or not an archive: {what}") from error


def _unsafe(what: str) -> DataError:
    return DataError(what, hint="an archive of data contains nothing of the kind: do not trust its source")


@dataclass
class _Allowance:
    """How many bytes may still be written, as the disk and as the size of the archive allow."""

    disk: int
    rest: int
    limit: int

    @classmethod
    def of(cls, archive: Path, folder: Path) -> "_Allowance":
        chosen = os.environ.get(LIMIT_VARIABLE)
        try:
            limit = (
                round(float(chosen) * 2**30) if chosen else max(ALWAYS_ALLOWED, MOST_GROWTH * archive.stat().st_size)
            )
        except ValueError:
            raise DataError(f"{chosen!r} is not a number of gigabytes", where=LIMIT_VARIABLE) from None
        return cls(round(shutil.disk_usage(folder).free * (1 - LEFT_FREE)), limit, limit)

    def take(self, amount: int) -> None:
        self.disk -= amount
        self.rest -= amount
        if self.disk < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.rest < 0:
            raise DataError(
                f"unpacks to more than {self.limit / 2**30:.1f} GB, the limit for an archive of its size",
                hint=f"if that is intended, set the environment variable {LIMIT_VARIABLE} to a larger number",
            )


def _write(member: Member, path: Path, folder: Path, allowance: _Allowance) -> None:
    allowance.take(DISK_BLOCK)
    if member.kind == "device":
        raise _unsafe(f"{member.name!r} is a device, a pipe or a socket")
    if member.kind == "folder":
        path.mkdir(parents=True, exist_ok=True)
        return
    if member.kind == "hard link":
        original = inside(folder, member.target)
        if not original.is_file():
            raise _unsafe(f"{member.name!r} is a link to {member.target!r}, which the archive does not contain")
        content: IO[bytes] = original.open("rb")
    else:
        content = member.open()
    path.parent.mkdir(parents=True, exist_ok=True)
    with content, path.open("wb") as copy:
        while block := content.read(LARGEST_READ):
            allowance.take(len(block))
            copy.write(block)


def _link_all(links: list[tuple[Path, str]], folder: Path) -> None:
    """Makes the symbolic links, none of them through another that leads outside, and checks them as they then are."""
    root = os.path.realpath(folder)

    def stays(path: Path) -> bool:
        return Path(os.path.realpath(path)).is_relative_to(root)

    for path, target in links:
        if path.is_dir() and not path.is_symlink():
            raise _unsafe(f"{str(path.relative_to(folder))!r} is a link to {target!r} and a folder with files")
        if stays(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.symlink_to(target)
    for path, target in links:
        if os.path.isabs(target) or not stays(path):
            raise _unsafe(f"{str(path.relative_to(folder))!r} is a link to {target!r}, outside the folder")


def _members(raw: io.BufferedIOBase, limit: int) -> Iterator[Member]:
    start = raw.read(8)
    raw.seek(0)
    if start.startswith(b"PK"):
        return _zip_members(raw)
    decompressed = next((way(raw) for magic, way in _DECOMPRESSION.items() if start.startswith(magic)), raw)
    return _tar_members(_Watched(decompressed, limit))


def _zip_members(raw: io.BufferedIOBase) -> Iterator[Member]:
    with zipfile.ZipFile(raw) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir() or kind == stat.S_IFDIR:
                yield Member(info.filename, "folder")
            elif kind == stat.S_IFLNK:
                with archive.open(info) as content:
                    yield Member(info.filename, "symbolic link", os.fsdecode(content.read(DISK_BLOCK)))
            else:
                regular = kind in (0, stat.S_IFREG)  # 0: written where files have no kind
                yield Member(info.filename, "file" if regular else "device", open=partial(archive.open, info))


def _tar_members(stream: "_Watched") -> Iterator[Member]:
    with tarfile.open(fileobj=stream, mode="r:") as archive:  # type: ignore[call-overload]  # it has read, seek and tell
        for info in archive:
            if info.isdir():
                yield Member(info.name, "folder")
            elif info.issym():
                yield Member(info.name, "symbolic link", info.linkname)
            elif info.islnk():
                yield Member(info.name, "hard link", info.linkname)
            else:
                content = partial(archive.extractfile, info)
                yield Member(info.name, "file" if info.isreg() else "device", open=content)
    # tarfile takes a header that is damaged or cut off for the end. The end is a block of zeros.
    if stream.last != bytes(TAR_BLOCK):
        raise tarfile.ReadError("the end is missing")
    while stream.read(LARGEST_READ):  # the check sum of compressed data stands behind them
        pass


class _Watched:
    """A stream that remembers what was last read of it, and reads only as much at once, and as far, as a sane archive
    needs: behind the files, or in place of one, there may be any number of zeros."""

    def __init__(self, stream: io.BufferedIOBase, limit: int) -> None:
        self.stream, self.tell, self.last = stream, stream.tell, b""
        self.end = limit + MOST_HEADERS

    def read(self, size: int) -> bytes:
        if size > LARGEST_READ:
            raise tarfile.ReadError("a header is too large")
        self._refuse(self.tell())
        self.last = self.stream.read(size)
        return self.last

    def seek(self, position: int) -> int:
        self._refuse(position)
        return self.stream.seek(position)

    def _refuse(self, position: int) -> None:
        if position > self.end:
            raise tarfile.ReadError("it goes on far behind its files")
