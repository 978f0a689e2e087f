"""Programs that threads compile before they are needed."""

import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

MOST_THREADS = 8
"""One program of a large model takes gigabytes to compile."""


class Ahead:
    """What is compiled, by a key: in threads, in the order in which it is needed."""

    def __init__(self) -> None:
        self._compiled: dict[Hashable, Future[object]] = {}

    @contextmanager
    def compiling(self, jobs: Mapping[Hashable, Callable[[], object]]) -> Iterator[None]:
        """Compiles inside what is not compiled yet; at the end, what is not done is forgotten."""
        new = {key: job for key, job in jobs.items() if key not in self._compiled}
        pool = ThreadPoolExecutor(min(MOST_THREADS, max(1, (os.cpu_count() or 1) // 2)), "compile")
        self._compiled |= {key: pool.submit(job) for key, job in new.items()}
        try:
            yield
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            self._compiled = {
                key: found for key, found in self._compiled.items() if found.done() and not found.cancelled()
            }

    def wait_for(self, key: Hashable) -> None:
        """Until this is compiled; at once, where nobody does. Raises what compiling it has raised."""
        if key in self._compiled:
            self._compiled[key].result()

    @property
    def progress(self) -> tuple[int, int]:
        """How many are compiled, of how many."""
        return sum(found.done() for found in self._compiled.values()), len(self._compiled)
