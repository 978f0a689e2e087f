"""Two contestants in processes of their own, taking turns: times in pairs, first calls, peak memory.

Each process holds one library and nothing of the other, so its peak memory is its own and no thread pool meets another.
While one works the other waits. This project starts twice, with an empty compilation cache and with a filled one.

Work of others on the machine is measured too, as it does not hurt both sides alike: threads of PyTorch's OpenMP wait by
spinning, and where a core is taken away a call can take fifty times as long.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import busy_seconds, cores, describe, process_seconds
from cli import ALLOCATOR

RESULTS = Path(__file__).parent / "results"
WARM_UP = 2
QUIET = 0.05  # the share of the processors that others may take
PAUSE = 0.05  # seconds between turns: thread pools spin a little after their work

_SPAWN = multiprocessing.get_context("spawn")
Contestant = Callable[[], Any]


class Worker(AbstractContextManager["Worker"]):
    """A contestant in a process of its own, whose methods are called by name."""

    def __init__(self, contestant: Contestant) -> None:
        self._connection, theirs = _SPAWN.Pipe()
        self._process = _SPAWN.Process(target=_serve, args=(theirs, contestant))
        self._process.start()
        self.pid = self._process.pid or 0
        theirs.close()
        self._connection.recv()

    def __call__(self, method: str, *arguments: Any) -> Any:
        return self.timed(method, *arguments)[1]

    def timed(self, method: str, *arguments: Any) -> tuple[float, Any]:
        """Seconds, as the process itself measures them, and the result."""
        self._connection.send((method, arguments))
        return self._connection.recv()

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join()


def _serve(connection: Connection, contestant: Contestant) -> None:
    """Builds the contestant and answers until the other end closes. An error ends the process with its traceback."""
    served = contestant()
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


def duel(
    ours: Contestant,
    peer: Contestant,
    *,
    rounds: int,
    device: str,
    inspect: Callable[[Worker, Worker], dict[str, Any]],
    count_flops: bool = True,
) -> dict[str, Any]:
    """Everything measured: `ours`, `peer`, FLOPs, the peak of matrix products before and after, the machine.

    `inspect` looks at both after the warm-up; what it returns becomes part of the result. Both processes get the
    allocator settings of `cli.py`.
    """
    os.environ["GLIBC_TUNABLES"] = ALLOCATOR
    os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = "0.4"  # two processes share a GPU
    if device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory() as cache:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = cache
        with Worker(ours) as worker:
            cold, _ = worker.timed("run")
            for _ in range(WARM_UP):
                worker("run")
            cold_memory = worker("memory")
            flops = worker("flops") if count_flops else None
        with Worker(ours) as us, Worker(peer) as them:
            first = {"ours": us.timed("run")[0], "peer": them.timed("run")[0]}
            _take_turns(us, them, WARM_UP)
            memory = {"ours": us("memory"), "peer": them("memory")}
            found = inspect(us, them)
            peaks = [us("matmul_peak")]
            with Others([os.getpid(), us.pid, them.pid]) as others:
                times = _take_turns(us, them, rounds)
            peaks.append(us("matmul_peak"))
            name = us("device")
    if others.share > QUIET:
        print(f"warning: others took {others.share:.0%} of the processors: benchmarks.report will refuse this result")
    return {
        "date": date.today().isoformat(),
        "machine": describe() | {"device": name},
        "ours": {
            "first_s": round(cold, 3),
            "first_cached_s": round(first["ours"], 3),
            "peak_mib": round(cold_memory),
            "peak_cached_mib": round(memory["ours"]),
            "times_ms": times["ours"],
        },
        "peer": {"first_s": round(first["peer"], 3), "peak_mib": round(memory["peer"]), "times_ms": times["peer"]},
        "model_gflop": None if flops is None else round(flops / 1e9, 2),
        "others_share": round(others.share, 3),
        "matmul_gflop_s": [round(peak / 1e9, 1) for peak in peaks],
    } | found


def _take_turns(us: Worker, them: Worker, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each round; who begins alternates."""
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for round_ in range(rounds):
        turns = [("ours", us), ("peer", them)]
        for name, worker in turns if round_ % 2 == 0 else reversed(turns):
            time.sleep(PAUSE)
            times[name].append(round(1000 * worker.timed("run")[0], 2))
    return times


def agreement(us: Worker, them: Worker) -> dict[str, Any]:
    """For each output, the largest difference and the share of entries within a thousandth, both relative to the
    largest entry."""
    errors = [np.abs(a - b) / np.abs(b).max() for a, b in zip(us("outputs"), them("outputs"), strict=True)]
    return {
        "largest_difference": [float(f"{e.max():.2g}") for e in errors],
        "share_within_1e-3": [round(float(np.mean(e < 1e-3)), 5) for e in errors],
    }


def losses(us: Worker, them: Worker) -> dict[str, Any]:
    """Of the same step on both sides, which differ in their random points and dropout."""
    return {"loss": {"ours": round(us("loss"), 3), "peer": round(them("loss"), 3)}}


def add_options(parser: argparse.ArgumentParser) -> None:
    """What every comparison understands."""
    parser.add_argument("--size", type=int, default=512, help="side of the square images, a multiple of 32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--rounds", type=int, default=20, help="timed pairs")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the result")


def save(folder: Path, name: str, result: dict[str, Any]) -> None:
    """Writes `<folder>/<name>.json`, and the main figures to the terminal."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    ours, peer = (np.median(result[side]["times_ms"]) for side in ("ours", "peer"))
    print(f"{name}: ours {ours:.0f} ms, Hugging Face {peer:.0f} ms, ratio {peer / ours:.2f} -> {path}")
