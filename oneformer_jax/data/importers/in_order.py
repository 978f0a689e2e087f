"""The same done for many files at once, in order, with only a few of them in memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_MOST_THREADS = 16  # decoding releases the interpreter lock
_AHEAD = 4  # for each thread


def in_order(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The results for the items in their order, computed by threads a little ahead of whoever takes them."""
    threads = min(_MOST_THREADS, os.cpu_count() or 1)
    left = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[R]] = deque(pool.submit(function, item) for item in islice(left, _AHEAD * threads))
        try:
            while running:
                result = running.popleft().result()
                for item in islice(left, 1):
                    running.append(pool.submit(function, item))
                yield result
        finally:
            for future in running:
                future.cancel()
