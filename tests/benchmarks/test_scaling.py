"""Weak scaling, modelled: on schedules that are counted by hand, and the page that shows those of the results."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scaling
from benchmarks.command import RESULTS
from benchmarks.gpu_program.schedule import Network
from benchmarks.scaling import ALONE, Collective, collectives, least_bytes, read_results, table

PAGE = Path(__file__).parents[2] / "docs" / "multi-host.md"
# A reduction of 80 MB beside 3 ms of kernels, which leave 4 ms; then a gathering of 8 MB beside nothing.
EVENTS: list[list[Any]] = [
    ["compute", 4e-3],
    ["start", "a", "all-reduce", 80e6],
    ["compute", 2e-3],
    ["compute", 1e-3],
    ["wait", "a"],
    ["start", "a", "all-gather", 8e6],
    ["wait", "a"],
]
NETWORK = Network(within=70e9, between=7e9, host=8, latency=0.0)


def test_the_page_shows_what_the_script_prints() -> None:
    page = PAGE.read_text()
    assert "\n".join(table(read_results(RESULTS), Network())) in page


@pytest.mark.parametrize(("strategy", "rounds"), [("ddp", 2), ("fsdp", 3)])
def test_a_device_alone_sends_nothing_and_many_send_whole_rounds(strategy: scaling.Strategy, rounds: int) -> None:
    assert least_bytes(1000, 1, strategy) == 0
    assert least_bytes(1000, 2, strategy) == rounds * 4 * 1000 / 2
    assert least_bytes(1000, 10**9, strategy) == pytest.approx(rounds * 4 * 1000)
    assert least_bytes(1000, 8, strategy, batches=3) == 3 * least_bytes(1000, 8, strategy)


def test_a_collective_is_shown_with_what_runs_beside_it() -> None:
    events = [tuple(event) for event in EVENTS]
    assert collectives(events, 8, NETWORK) == [
        Collective("all-reduce", 80e6, pytest.approx(2e-3), pytest.approx(3e-3)),
        Collective("all-gather", 8e6, pytest.approx(0.1e-3), 0.0),
    ]


def test_what_kernels_hide_costs_nothing_until_the_network_is_slow(tmp_path: Path) -> None:
    """On 8 GPUs 2 ms of sending hide behind 3 ms of kernels: 7 ms and the gathering. Between hosts it is ten times and
    9/8 as slow: 22.5 ms after the first 4, and the gathering."""
    results = {ALONE.name: {"step_ms": 6.0}, f"{ALONE.name}-x8-ddp": {"schedule": EVENTS}}
    for name, result in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    rows = [line.strip("| ").split(" | ") for line in table(read_results(tmp_path), NETWORK)]
    assert rows[0] == ["GPUs", "ddp: sent by each, GB", "ddp: step, ms", "ddp: efficiency"]
    assert rows[2] == ["8", "0.15", "7.1", "0.85"]
    assert rows[3] == ["64", "0.17", f"{4 + 22.5 + 1.125:.1f}", f"{6 / 27.625:.2f}"]


def test_without_results_it_says_what_writes_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"b2-bf16-mixed\.json: .* `make gpu-program` writes it"):
        read_results(tmp_path)
    (tmp_path / f"{ALONE.name}.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"x8-ddp\.json: "):
        read_results(tmp_path)
