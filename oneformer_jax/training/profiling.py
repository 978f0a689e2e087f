"""A trace of some steps by JAX's profiler, for TensorBoard's profile tab, XProf or Perfetto."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

STEPS_BEFORE = 3
"""They compile, and fill the queues."""


@contextmanager
def profiler(folder: Path, start: int, steps: int) -> Iterator[Callable[[int, Any], None]]:
    """A function to call before each step with the updates done so far and arrays of the last one.

    It traces `steps` steps (0: none) of a training that began at `start`, or as many as there are.
    """
    first, running = start + STEPS_BEFORE, False

    def before(step: int, arrays: Any) -> None:
        nonlocal running
        if steps and step == first:
            jax.block_until_ready(arrays)
            jax.profiler.start_trace(str(folder))
            running = True
        elif running and step == first + steps:
            jax.block_until_ready(arrays)
            jax.profiler.stop_trace()
            running = False

    try:
        yield before
    finally:
        if running:
            jax.profiler.stop_trace()
