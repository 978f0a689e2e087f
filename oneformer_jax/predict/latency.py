"""How long a backend takes for a batch."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from oneformer_jax.data.geometry import Size
from oneformer_jax.evaluation.evaluator import Backend
from oneformer_jax.tasks import Task

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Latency:
    """Milliseconds of every measured batch of `batch_size` images."""

    batch_size: int
    milliseconds: tuple[float, ...]

    def percentile(self, percent: int) -> float:
        """The time that so many per cent of the batches take at most, in milliseconds."""
        return float(np.percentile(self.milliseconds, percent))

    @property
    def throughput(self) -> float:
        """Images a second, over all batches."""
        return 1000 * self.batch_size * len(self.milliseconds) / sum(self.milliseconds)

    def to_json(self) -> dict[str, Any]:
        """Milliseconds a batch and images a second."""
        percentiles = {f"p{percent}_ms": round(self.percentile(percent), 3) for percent in PERCENTILES}
        facts = {"batch_size": self.batch_size, "runs": len(self.milliseconds), **percentiles}
        return facts | {"min_ms": round(min(self.milliseconds), 3), "images_per_second": round(self.throughput, 3)}


def measure(
    backend: Backend, size: Size, batch_sizes: Sequence[int], task: Task, *, warm_up: int, runs: int
) -> list[Latency]:
    """Times from uint8 images in memory to logits in memory, with one task; `warm_up` runs before are not counted."""
    rng = np.random.default_rng(0)
    results = []
    for batch_size in batch_sizes:
        images = rng.integers(0, 256, (batch_size, *size, 3), np.uint8)
        sizes = np.tile(np.array(size, np.int32), (batch_size, 1))
        times = []
        for _ in range(warm_up + runs):
            start = time.perf_counter()
            backend.predict(images, sizes, [task])
            times.append(1000 * (time.perf_counter() - start))
        results.append(Latency(batch_size, tuple(times[warm_up:])))
    return results
