"""Worker processes of the pipeline: they end with their parent, and what they were at when they were ended is known.

A process that the system kills leaves no exception. Each notes the sample that it prepares in a file, mapped into its
memory, which the parent reads when a process has gone.
"""

import mmap
import multiprocessing
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2

_NOTE = struct.Struct("qqq")  # the process, the global sample index and the record that it prepares; -1: none
_notes: list[mmap.mmap] = []  # of this process: one if it is a worker


def start_worker(folder: Path, index: int, count: int) -> None:
    """What worker `index` of `count` does first; its note lies in `folder`."""
    cv2.setNumThreads(0)  # the workers are the parallelism
    path = folder / str(index)
    path.write_bytes(_NOTE.pack(os.getpid(), -1, -1))
    with path.open("r+b") as file:
        _notes[:] = [mmap.mmap(file.fileno(), 0)]
    threading.Thread(target=_die_with_parent, daemon=True).start()


@contextmanager
def noted(sample: int, record: int) -> Iterator[None]:
    """Inside the block, a worker process counts as preparing that record."""
    for note in _notes:
        _NOTE.pack_into(note, 0, os.getpid(), sample, record)
    yield
    for note in _notes:
        _NOTE.pack_into(note, 0, os.getpid(), -1, -1)


def left_unfinished(folder: Path) -> list[tuple[int, int]]:
    """Sample and record that each worker was at, of those workers that are no more."""
    notes = [_NOTE.unpack(path.read_bytes()) for path in sorted(folder.iterdir())]
    return [(sample, record) for pid, sample, record in notes if sample >= 0 and not _is_alive(pid)]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _die_with_parent() -> None:
    # A parent that SIGTERM or the kernel ends cannot stop its workers, and they would stay for good.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
