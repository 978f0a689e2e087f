"""Weak scaling on paper: the limits of the formulas, and the page that shows them."""

from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks.scaling import Network, efficiency, sent_bytes

PAGE = Path(__file__).parents[2] / "docs" / "multi-host.md"


def test_the_page_shows_what_the_script_prints() -> None:
    lines = scaling.table(scaling.PARAMETERS, scaling.SECONDS, Network())
    assert "\n".join(lines) in PAGE.read_text()


@pytest.mark.parametrize(("strategy", "rounds"), [("ddp", 2), ("fsdp", 3)])
def test_a_device_alone_sends_nothing_and_many_send_whole_rounds(strategy: scaling.Strategy, rounds: int) -> None:
    assert sent_bytes(1000, 1, strategy) == 0
    assert sent_bytes(1000, 2, strategy) == rounds * 4 * 1000 / 2
    assert sent_bytes(1000, 10**9, strategy) == pytest.approx(rounds * 4 * 1000)
    assert sent_bytes(1000, 8, strategy, batches=3) == 3 * sent_bytes(1000, 8, strategy)
    assert efficiency(1.0, 1000, 1, strategy, Network()) == 1


def test_half_the_time_on_the_network_is_half_the_efficiency() -> None:
    network = Network(between=1e9, latency=0.0)
    sent = sent_bytes(10**9, 64, "ddp") / 1e9
    assert efficiency(sent, 10**9, 64, "ddp", network) == pytest.approx(0.5)
