"""Pictures that a person names on a command line: files, folders, patterns, archives, addresses."""

import glob
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from oneformer_jax.data.datasets.dataset import Problems
from oneformer_jax.data.datasets.images import SUFFIXES, pictures_below
from oneformer_jax.data.storage.addresses import is_address, shown
from oneformer_jax.data.storage.cache import local_path
from oneformer_jax.data.storage.folders import LeftOut, is_litter
from oneformer_jax.errors import DataError


def find_pictures(sources: Sequence[str], *, what: str = "SOURCE", left_out: LeftOut | None = None) -> list[Path]:
    """The files of the pictures that `sources` name, each once, in the order of the sources.

    A source is a file, whatever its name; a folder or an archive of pictures at any depth, hidden files left out; a
    pattern such as `photos/**/*.jpg`, for pictures and folders; or the address of a file, an archive or a folder. What
    has a pattern for its name goes before what fits the pattern. `what` is the argument that names them, for messages;
    `left_out` gets what lies in a folder and is no file, or cannot be looked into (None: a warning says so).

    Raises DataError with all sources that name no picture.
    """
    real = cache(os.path.realpath)
    problems, found = Problems(), dict[str, Path]()
    for source in sources:
        with problems.collected():
            for path in _named(source, what, left_out):
                found.setdefault(os.path.join(real(path.parent), path.name), path)
    problems.raise_all()
    return list(found.values())


def _named(source: str, what: str, left_out: LeftOut | None) -> list[Path]:
    where = f"{what}: {shown(source)}"
    if not source:
        raise DataError("an empty text, expected a picture or a folder", where=what)
    written = os.path.expanduser(source)
    if glob.has_magic(source) and not is_address(source) and not os.path.lexists(written):
        return _fitting(written, where, left_out)
    path = local_path(source, what=what)
    if not path.is_dir():
        return [path]
    if not (below := _below(path, left_out)):
        raise DataError("the folder contains no pictures, at no depth", where=where, hint=_known())
    return below


def _fitting(pattern: str, where: str, left_out: LeftOut | None) -> list[Path]:
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    found = []
    for path in matches:
        if path.is_dir():
            found += _below(path, left_out)
        elif path.suffix.lower() in SUFFIXES and not is_litter(path):
            found.append(path)
    if not found:
        others = f"; {len(matches)} others fit, such as {matches[0]}" if matches else ""
        raise DataError(f"no picture fits this pattern{others}", where=where, hint=_known())
    return found


def _below(folder: Path, left_out: LeftOut | None) -> list[Path]:
    return [folder / path for path in pictures_below(folder, left_out)]


def _known() -> str:
    return f"pictures are files {', '.join(sorted(SUFFIXES))}"
