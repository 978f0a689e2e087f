"""Checksums of a checkpoint's files: a disk that returns other bits than it was given is found out, not trained on.

Orbax verifies its index, not the arrays.
"""

import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from oneformer_jax.errors import CheckpointError
from oneformer_jax.stored import read_json
from oneformer_jax.writing import write_json

FILE = "checksums.json"
_PIECE = 1 << 18  # bytes that are read at once
HINT = (
    "the checkpoint is damaged: use another step of the same run, or a copy of this one "
    "(a run whose newest step is damaged resumes from the one before if its folder is removed)"
)


def write_checksums(step_dir: Path) -> None:
    """Writes the size and the CRC-32 of every file of a complete checkpoint beside them. Raises OneFormerError."""
    paths = sorted(path for path in step_dir.rglob("*") if path.is_file() and path.name != FILE)
    with _pool() as pool:
        found = pool.map(_size_and_sum, paths)
        sums = {path.relative_to(step_dir).as_posix(): entry for path, entry in zip(paths, found, strict=True)}
    write_json(step_dir / FILE, sums)


def check_files(step_dir: Path, item: str) -> None:
    """Compares the files of an item with what was written. Checkpoints without checksums (killed before they were
    written, or of before 0.3) pass.

    Raises CheckpointError that names a file which is missing, or is not as it was.
    """
    if not (step_dir / FILE).is_file():
        return
    sums = read_json(step_dir / FILE, error=CheckpointError)
    if not isinstance(sums, dict):
        raise CheckpointError("not the sizes and checksums of files", where=str(step_dir / FILE), hint=HINT)
    expected = {step_dir / name: entry for name, entry in sums.items() if name.startswith(f"{item}/")}
    for path in expected:
        if not path.is_file():
            raise CheckpointError(f"a file of `{item}` is missing", where=str(path), hint=HINT)
    with _pool() as pool:
        for path, found in zip(expected, pool.map(_size_and_sum, expected), strict=True):
            if found != expected[path]:
                what = f"a file of `{item}` is not as it was written: size and checksum are {found}, expected"
                raise CheckpointError(f"{what} {expected[path]}", where=str(path), hint=HINT)


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1))  # zlib lets go of the interpreter


def _size_and_sum(path: Path) -> list[int]:
    size = total = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            size, total = size + len(piece), zlib.crc32(piece, total)
    return [size, total]
