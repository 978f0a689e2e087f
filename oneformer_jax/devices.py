"""Which devices of a machine a run asks for. Free of JAX."""

import os
from dataclasses import dataclass
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"


def nvidia_gpus() -> int:
    """How many GPUs the driver of this machine knows; 0 where the environment hides all of them."""
    hidden = os.environ.get(VISIBLE) in ("", "-1")
    return 0 if hidden else len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


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
