"""Measures two sides alternately, each in a process of its own: paired times, first calls, peak memory.

Each process loads one library and nothing of the other, so its peak memory is its own and thread pools do not compete.
While one side runs the other waits; if memory is too small for both, it is ended (`apart`). This project is started
twice, with an empty compilation cache and with a filled one.

In every round each side is measured once: one call that does not count, since the first call after the other side has
run can take half as long again, and some timed calls, whose median is the time of the measurement.

Other load on the machine is measured too, because it does not affect both sides equally: threads of PyTorch's OpenMP
wait by spinning, and if a core is taken away a call can take fifty times as long.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import date
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks.machine import busy_seconds, cores, describe, process_seconds
from oneformer_jax.__main__ import ALLOCATOR

WARM_UP = 2  # calls after the first one
CALLS = 3  # timed calls of a measurement
QUIET = 0.05  # the share of the processors that others may take
PAUSE = 0.05  # seconds between measurements: thread pools spin a little after their work

_SPAWN = multiprocessing.get_context("spawn")
Side = Callable[[], Any]


class Worker(AbstractContextManager["Worker"]):
    """One side in a process of its own, whose methods are called by name."""

    def __init__(self, side: Side) -> None:
        """Raises RuntimeError, as every call does, where the process has ended."""
        self._connection, remote = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(remote, side))
        self._process.start()
        self.pid = self._process.pid or 0
        remote.close()
        self._answer()

    def __call__(self, method: str, *arguments: Any) -> Any:
        return self.timed(method, *arguments)[1]

    def timed(self, method: str, *arguments: Any) -> tuple[float, Any]:
        """Seconds, as the process itself measures them, and the result."""
        self._connection.send((method, arguments))
        return self._answer()

    def _answer(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            raise RuntimeError(f"the process of a side ended with exit code {code} (-9: often out of memory)") from None

    def rest(self) -> None:
        """Between measurements: this process stays as it is."""

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join()


class RestingWorker(AbstractContextManager["RestingWorker"]):
    """A worker whose process ends between measurements, for two sides that do not fit into memory together."""

    pid = 0  # of no process that lasts

    def __init__(self, side: Side) -> None:
        self._side = side
        self._worker: Worker | None = None
        self._warm = False

    def __call__(self, method: str, *arguments: Any) -> Any:
        return self.timed(method, *arguments)[1]

    def timed(self, method: str, *arguments: Any) -> tuple[float, Any]:
        """As of a worker. All processes but the first warm up of themselves."""
        if self._worker is None:
            self._worker = Worker(self._side)
            for _ in range(1 + WARM_UP if self._warm else 0):
                self._worker("run")
        return self._worker.timed(method, *arguments)

    def rest(self) -> None:
        """Ends the process."""
        if self._worker is not None:
            self._worker.__exit__()
        self._worker, self._warm = None, True

    def __exit__(self, *_: object) -> None:
        self.rest()


AnyWorker = Worker | RestingWorker

# Looks at this project's side and at the other; what it returns becomes part of the result.
Inspection = Callable[[AnyWorker, AnyWorker], dict[str, Any]]


def _serve(connection: Connection, side: Side) -> None:
    """Builds the side and answers until the other end closes. An error ends the process with its traceback."""
    served = side()
    connection.send(None)
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            return
        start = time.perf_counter()
        result = getattr(served, method)(*arguments)
        connection.send((time.perf_counter() - start, result))


class Others(AbstractContextManager["Others"]):
    """Measures the share of the processors that other processes than `own` take inside the `with` block."""

    def __init__(self, own: list[int]) -> None:
        self._own, self.share = own, 0.0

    def _now(self) -> tuple[float, float]:
        return time.perf_counter(), busy_seconds() - sum(map(process_seconds, self._own))

    def __enter__(self) -> "Others":
        self._start = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        seconds, taken = (after - before for before, after in zip(self._start, self._now(), strict=True))
        self.share = max(taken, 0.0) / (seconds * cores())


def in_process(function: Callable[[], None]) -> None:
    """Runs a function in a process of its own, whose memory is free afterwards."""
    process = _SPAWN.Process(target=function)
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"{function} ended with exit code {process.exitcode}")


def compare(
    this_project: Side,
    reference: Side,
    *,
    rounds: int,
    device: str,
    inspect: Inspection,
    count_flops: bool = True,
    apart: bool = False,
) -> dict[str, Any]:
    """Everything measured: both sides, FLOPs, the peak of matrix products before and after, the machine.

    `inspect` is called after the warm-up, when both have run equally often. Both processes get the allocator settings
    of `cli.py`. With `apart` they are never in memory together: each measurement starts a new process and warms it up.
    """
    kind: type[AnyWorker] = RestingWorker if apart else Worker
    os.environ["GLIBC_TUNABLES"] = ALLOCATOR
    os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.4"  # two processes share a GPU
    # Without this, a JAX without CUDA silently uses the CPU of a machine with a GPU.
    os.environ["JAX_PLATFORMS"] = "cpu" if device == "cpu" else "cuda,cpu"
    print("cold start of this project: it compiles, which may take minutes", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
        with Worker(this_project) as cold_start:
            cold, _ = cold_start.timed("run")
            for _ in range(WARM_UP):
                cold_start("run")
            cold_memory = cold_start("memory")
            flops = cold_start("flops") if count_flops else None
        first, warm, memory = {}, 0.0, {}
        with kind(this_project) as project, kind(reference) as other:
            for name, worker in (("this_project", project), ("reference", other)):
                first[name] = worker.timed("run")[0]
                warm += [worker.timed("run")[0] for _ in range(WARM_UP)][-1]
                memory[name] = worker("memory")
                worker.rest()
            found = inspect(project, other)
            peaks = [project("matmul_peak")]
            project.rest()
            seconds = rounds * (2 * PAUSE + (1 + CALLS) * warm)
            if apart:
                seconds += rounds * (sum(first.values()) + WARM_UP * warm)
            print(f"{rounds} measurements of each side: about {seconds:.0f} s", flush=True)
            with Others([pid for pid in (os.getpid(), project.pid, other.pid) if pid]) as others:
                times = round_times({"this_project": project, "reference": other}, rounds)
            peaks.append(project("matmul_peak"))
            device_name = project("device")
    others_share = round(others.share, 3)
    if others_share > QUIET:
        print(f"warning: others took {others_share:.0%} of the processors: benchmarks.report will refuse this result")
    return {
        "date": date.today().isoformat(),
        "machine": describe() | {"device": device_name},
        "this_project": {
            "first_s": round(cold, 3),
            "first_cached_s": round(first["this_project"], 3),
            "peak_mib": round(cold_memory),
            "peak_cached_mib": round(memory["this_project"]),
            "times_ms": times["this_project"],
        },
        "reference": {
            "first_s": round(first["reference"], 3),
            "peak_mib": round(memory["reference"]),
            "times_ms": times["reference"],
        },
        "model_gflop": None if flops is None else round(flops / 1e9, 2),
        "others_share": others_share,
        "matmul_gflop_s": [round(peak / 1e9, 1) for peak in peaks],
    } | found


def round_times(workers: Mapping[str, AnyWorker], rounds: int, *arguments: Any) -> dict[str, list[float]]:
    """Milliseconds of each measurement of `run(*arguments)` by the worker's name. The worker that begins a round
    rotates."""
    times: dict[str, list[float]] = {name: [] for name in workers}
    names = list(workers)
    for round_ in range(rounds):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            worker = workers[name]
            time.sleep(PAUSE)
            worker("run", *arguments)
            seconds = statistics.median(worker.timed("run", *arguments)[0] for _ in range(CALLS))
            times[name].append(round(1000 * seconds, 2))
            worker.rest()
    return times


def agreement(project: AnyWorker, reference: AnyWorker) -> dict[str, Any]:
    """For each output, the largest difference and the share of entries within a thousandth, both relative to the
    largest entry."""
    errors = [np.abs(a - b) / np.abs(b).max() for a, b in zip(project("outputs"), reference("outputs"), strict=True)]
    return {
        "largest_difference": [float(f"{e.max():.2g}") for e in errors],
        "share_within_1e-3": [round(float(np.mean(e < 1e-3)), 5) for e in errors],
    }


def losses(project: AnyWorker, reference: AnyWorker) -> dict[str, Any]:
    """Of the same step on both sides, which differ in their random points and dropout."""
    found = {}
    for name, worker in (("this_project", project), ("reference", reference)):
        found[name] = round(worker("loss"), 3)
        worker.rest()
    return {"loss": found}
