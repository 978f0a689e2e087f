"""Which devices of a machine a run asks for, and how fast its processor is. Free of JAX."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"


def nvidia_gpus() -> int:
    """How many GPUs the driver of this machine knows; 0 where the environment hides all of them."""
    hidden = os.environ.get(VISIBLE) in ("", "-1")
    return 0 if hidden else len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def processor() -> str:
    """What times without a GPU depend on: cores, and GFLOP/s of NumPy's product of matrices, the best of ten."""
    import numpy as np  # which a bare installation lacks

    size, best = 1024, float("inf")
    matrix = np.ones((size, size), np.float32)
    for _ in range(10):
        start = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - start)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, {2 * size**3 / best / 1e9:.0f} GFLOP/s in float32 products of NumPy"


@dataclass(frozen=True)
class DeviceChoice:
    """The devices of `indices` where they are given, else the first `count`.

    `chosen`: whether somebody wrote either of them, or both are defaults. `section` is the one of the spec that says
    so, for messages.
    """

    count: int = 1
    indices: tuple[int, ...] | None = None
    chosen: bool = False
    section: str = "train"
