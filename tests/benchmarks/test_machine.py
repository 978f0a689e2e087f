import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from idle_sides import Burden

from benchmarks import comparison, machine


@pytest.fixture(scope="module")
def worker() -> Iterator[comparison.Worker]:
    with comparison.Worker(Burden) as worker:
        yield worker


def test_peak_memory_grows_by_what_is_held(worker: comparison.Worker) -> None:
    assert machine.peak_memory_mib() > 0
    assert worker("hold", 256) == pytest.approx(256, abs=16)
    assert worker("hold", 64) == pytest.approx(0, abs=16), "a peak stays"


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="the system does not report it")
def test_processor_time_of_a_process_and_of_the_machine(worker: comparison.Worker) -> None:
    process, busy = machine.process_seconds(worker.pid), machine.busy_seconds()
    spent = worker("compute", 0.5)
    assert machine.process_seconds(worker.pid) - process == pytest.approx(spent, abs=0.05)
    assert machine.busy_seconds() - busy > spent - 0.1


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="the system does not report it")
def test_others_are_the_processes_that_are_not_named(worker: comparison.Worker) -> None:
    start = time.perf_counter()
    with comparison.Others([os.getpid()]) as with_worker, comparison.Others([os.getpid(), worker.pid]) as without:
        spent = worker("compute", 0.5)
    capacity = machine.cores() * (time.perf_counter() - start)
    # The difference, as other tests may run beside this one.
    assert with_worker.share - without.share == pytest.approx(spent / capacity, abs=0.1 / machine.cores())


def test_the_share_of_others_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, own = iter([100.0, 112.0]), {7: iter([1.0, 9.0]), 8: iter([5.0, 6.0])}
    monkeypatch.setattr(comparison, "busy_seconds", lambda: next(busy))
    monkeypatch.setattr(comparison, "process_seconds", lambda pid: next(own[pid]))
    monkeypatch.setattr(comparison, "cores", lambda: 2)
    clock = iter([50.0, 60.0])
    monkeypatch.setattr(comparison, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    with comparison.Others([7, 8]) as others:
        pass
    assert others.share == pytest.approx((12 - 8 - 1) / (2 * 10))


@pytest.mark.slow
def test_only_the_usable_processors_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = tmp_path / "stat"
    statistics.write_text(
        "cpu  111 29 12 1017 1017 13 14 16 59 50\n"
        "cpu0 100 20 3 999 999 4 5 6 50 50\n"
        "cpu1 9 9 9 9 9 9 9 9 0 0\n"
        "cpu10 1 0 0 9 9 0 0 1 0 0\n"
        "intr 1 2 3\n"
    )
    monkeypatch.setattr(machine, "Path", lambda name: statistics)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 10}, raising=False)
    assert machine.busy_seconds() == (100 + 20 + 3 + 4 + 5 + 6 + 1 + 1) / os.sysconf("SC_CLK_TCK")
