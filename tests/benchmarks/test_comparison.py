import os
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from idle_sides import Burden, Idler, fail_at_once

from benchmarks import comparison


class Scripted:
    """Stands for a worker: calls last what the script says, and a list notes whose they were."""

    def __init__(self, name: str, seconds: list[float], called: list[str]) -> None:
        self._name, self._seconds, self._called = name, iter(seconds), called

    def timed(self, method: str) -> tuple[float, None]:
        assert method == "run"
        self._called.append(self._name)
        return next(self._seconds), None

    def __call__(self, method: str) -> None:
        self.timed(method)

    def rest(self) -> None:
        self._called.append("rest")


class Holder:
    """Stands for a worker that has outputs."""

    def __init__(self, *outputs: list[float]) -> None:
        self._outputs = [np.array(output) for output in outputs]

    def __call__(self, method: str) -> list[np.ndarray]:
        assert method == "outputs"
        return self._outputs


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Takes back what a comparison sets for its processes."""
    for name in ("GLIBC_TUNABLES", "XLA_PYTHON_CLIENT_MEM_FRACTION", "JAX_PLATFORMS", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    yield
    monkeypatch.undo()


def test_the_first_call_of_a_measurement_does_not_count_and_the_median_of_three_does() -> None:
    called: list[str] = []
    project = Scripted("project", [9.0, 0.1, 0.3, 0.2, 9.0, 0.5, 0.4, 0.6, 9.0, 0.7, 0.7, 9.0], called)
    other = Scripted("other", [9.0, 1.0, 1.0, 1.0, 9.0, 1.5, 1.4, 9.0, 9.0, 2.0, 0.1, 2.25], called)
    times = comparison.round_times({"this_project": project, "reference": other}, 3)
    assert times == {"this_project": [200.0, 500.0, 700.0], "reference": [1000.0, 1500.0, 2000.0]}
    order = ["project", "other", "other", "project", "project", "other"]
    assert called == [call for name in order for call in (*[name] * 4, "rest")], "the side that begins alternates"


def test_agreement_is_relative_to_the_largest_entry() -> None:
    project = Holder([0.0, 2.002, -4.2], [[1.0, 1.0]])
    other = Holder([0.0, 2.0, -4.0], [[1.0, 1.0]])
    assert comparison.agreement(project, other) == {
        "largest_difference": [0.05, 0.0],
        "share_within_1e-3": [round(2 / 3, 5), 1.0],
    }


def test_a_worker_is_another_process_that_measures_its_own_time() -> None:
    with comparison.Worker(partial(Idler, 0.05)) as worker:
        assert worker.pid != os.getpid()
        seconds, result = worker.timed("run")
        assert 0.05 <= seconds < 1
        assert result is None
        assert worker("runs") == 1


def test_a_resting_worker_starts_anew_and_warms_up_before_it_answers() -> None:
    with comparison.RestingWorker(partial(Idler, 0.0)) as worker:
        worker("run")
        first = worker("pid")
        assert (worker("runs"), worker("pid")) == (1, first)
        worker.rest()
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        assert worker("runs") == 1 + comparison.WARM_UP
        last = worker("pid")
        assert last != first
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)


def test_a_side_that_fails_ends_with_its_exit_code(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        comparison.Worker(Burden) as worker,
        pytest.raises(RuntimeError, match="of a side ended with exit code 1"),
    ):
        worker("fail")
    assert "ValueError: on purpose" in capfd.readouterr().err
    with pytest.raises(RuntimeError, match="of a side ended with exit code 1"):
        comparison.Worker(fail_at_once)
    with pytest.raises(RuntimeError, match="exit code 1"):
        comparison.in_process(fail_at_once)


@pytest.mark.slow
@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("device", "platforms", "apart"), [("cpu", "cpu", False), ("gpu", "cuda,cpu", False), ("cpu", "cpu", True)]
)
def test_a_comparison(device: str, platforms: str, apart: bool, capsys: pytest.CaptureFixture[str]) -> None:
    def inspect(project: comparison.AnyWorker, other: comparison.AnyWorker) -> dict[str, Any]:
        return {
            "runs": [project("runs"), other("runs")],
            "platforms": {side("environment", "JAX_PLATFORMS") for side in (project, other)},
            "cache": os.path.isdir(project("environment", "JAX_COMPILATION_CACHE_DIR")),
        }

    slow, quick = partial(Idler, 0.1), partial(Idler, 0.01)
    result = comparison.compare(slow, quick, rounds=2, device=device, inspect=inspect, apart=apart)
    assert result["runs"] == [1 + comparison.WARM_UP] * 2, "what is compared then is the same step of both"
    assert result["platforms"] == {platforms}
    assert result["cache"]
    assert result["model_gflop"] == 3
    assert result["matmul_gflop_s"] == [5, 5]
    assert result["machine"]["device"] == "none"
    assert [len(result[side]["times_ms"]) for side in ("this_project", "reference")] == [2, 2]
    assert min(result["this_project"]["times_ms"]) >= 100
    assert min(result["this_project"]["first_s"], result["this_project"]["first_cached_s"]) >= 0.1
    assert min(result["reference"]["times_ms"]) >= 10
    assert 0 < result["this_project"]["peak_mib"] < 1000
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("cold start")
    estimate = re.fullmatch(r"2 measurements of each side: about (\d+) s", printed[1])
    assert estimate
    # 2 measurements of 4 calls of 0.11 s (apart: of 7 at most), pauses, and what a busy machine adds.
    assert 1 <= int(estimate[1]) <= 3
