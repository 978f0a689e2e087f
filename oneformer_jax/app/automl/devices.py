"""Where the trials of a study run: one place for each that can run at the same time.

The study itself must not start an accelerator, whose memory it would take from its trials: another process counts.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from oneformer_jax.app.run.children import VISIBLE, gpu_names, whole_groups
from oneformer_jax.devices import DeviceChoice
from oneformer_jax.errors import OneFormerError

COUNT = "import jax, json; print(json.dumps([jax.default_backend(), jax.local_device_count()]))"


@dataclass(frozen=True)
class Place:
    """What the training of a trial may use: the environment that confines it, and its cores (empty: all)."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    cores: frozenset[int] = frozenset()


def find_places(choice: DeviceChoice, at_most: int) -> list[Place]:
    """Places of as many devices each as the choice counts, or the one of its indices; `at_most` 0: all."""
    backend, count = count_devices()
    if backend == "gpu":
        return gpu_places(count, choice, at_most, os.environ.get(VISIBLE, ""))
    if backend == "cpu" and at_most > 1:
        return cpu_places(sorted(os.sched_getaffinity(0)), at_most)
    return [Place(backend)]


def count_devices() -> tuple[str, int]:
    """The backend that a training would use, and its devices. Raises OneFormerError where JAX does not start."""
    result = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=False)
    try:
        backend, count = json.loads(result.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = result.stderr.strip().splitlines()
        raise OneFormerError(f"JAX cannot start: {said[-1] if said else 'no output'}") from None
    return str(backend), int(count)


def gpu_places(count: int, choice: DeviceChoice, at_most: int, visible: str) -> list[Place]:
    """Groups of devices in their order, one process each; `visible` is what restricts this process already."""
    names = gpu_names(count, visible)
    groups = whole_groups(range(count), min(choice.count, count))
    indices = groups if choice.indices is None else [list(choice.indices)]
    chosen = indices[: at_most or None]
    return [
        Place(f"gpu {' '.join(map(str, group))}", {VISIBLE: ",".join(names[index] for index in group)})
        for group in chosen
    ]


def cpu_places(cores: Sequence[int], number: int) -> list[Place]:
    """The cores shared out as evenly as they can be, each place at least one."""
    number = min(number, len(cores))
    ends = [round(index * len(cores) / number) for index in range(number + 1)]
    shares = [frozenset(cores[start:end]) for start, end in pairwise(ends)]
    return [Place(f"cores {' '.join(map(str, sorted(share)))}", cores=share) for share in shares]
