"""Sides of a comparison that need neither library."""

import os
import time

import numpy as np

from benchmarks.machine import peak_memory_mib


class Idler:
    """Everything that a comparison asks of a side; a run sleeps."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._runs = seconds, 0

    def run(self) -> None:
        self._runs += 1
        time.sleep(self._seconds)

    def runs(self) -> int:
        return self._runs

    def pid(self) -> int:
        return os.getpid()

    def memory(self) -> float:
        return peak_memory_mib()

    def flops(self) -> float:
        return 3e9

    def matmul_peak(self) -> float:
        return 5e9

    def device(self) -> str:
        return "none"

    def environment(self, name: str) -> str:
        return os.environ[name]


class Burden:
    """Works and holds memory in ways that it can measure itself."""

    def compute(self, seconds: float) -> float:
        """The processor time that this took."""
        start = time.process_time()
        while time.process_time() - start < seconds:
            pass
        return time.process_time() - start

    def hold(self, mib: int) -> float:
        """The growth of the peak memory by an array of this size."""
        before = peak_memory_mib()
        np.ones(mib << 20, np.uint8)
        return peak_memory_mib() - before

    def fail(self) -> None:
        raise ValueError("on purpose")


def fail_at_once() -> None:
    raise ValueError("on purpose")
