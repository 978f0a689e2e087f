"""Weak scaling, modelled: when the compiled step of eight GPUs sends what, and what that costs on more of them.

    make gpu-program                # writes the results that this reads: those of Swin-L on one GPU and on eight
    python -m benchmarks.scaling    # prints the tables of docs/multi-host.md

The schedule is that of the compiled step: its kernels one after another, a collective beside them from where it starts
to where its result is waited for (`benchmarks.gpu_program.schedule`). More devices are taken to run the same schedule,
in which the same arrays travel further. The bandwidths are assumptions, and are printed.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks.command import RESULTS
from benchmarks.gpu_program.case import Case
from benchmarks.gpu_program.figures import events_in
from benchmarks.gpu_program.schedule import Event, Network, sent_bytes, times_of

Strategy = Literal["ddp", "fsdp"]
STRATEGIES: tuple[Strategy, ...] = ("ddp", "fsdp")
FLOAT32 = 4
DEVICES = (8, 64, 512)
ALONE = Case("swin_l", 1024, 2, "bf16-mixed")


class Collective(NamedTuple):
    """What one joins (`whole`: the bytes of all parts), how long that takes, and how long kernels run before the
    schedule waits for it."""

    kind: str
    whole: float
    sending: float
    beside: float


def least_bytes(parameters: int, devices: int, strategy: Strategy, *, batches: int = 1) -> float:
    """What each device sends in a step of so many batches for so many float32 parameters, with rings.

    ddp: all-reduce of the gradients, once a batch. fsdp: two all-gathers of the parameters and a reduce-scatter of the
    gradients.
    """
    rounds = 2 if strategy == "ddp" else 3
    return batches * rounds * FLOAT32 * parameters * (devices - 1) / devices


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """The results of `ALONE` and, by strategy, of eight devices; a strategy without a result is absent.

    Raises FileNotFoundError: there is none of one device, or none of several.
    """
    cases = {"alone": ALONE} | {name: replace(ALONE, devices=8, strategy=name) for name in STRATEGIES}
    paths = {name: folder / f"{case.name}.json" for name, case in cases.items()}
    found = {name: json.loads(path.read_text()) for name, path in paths.items() if path.is_file()}
    if "alone" not in found or len(found) == 1:
        missing = next(path for name, path in paths.items() if name not in found)
        raise FileNotFoundError(f"{missing}: there is no such result; `make gpu-program` writes it")
    return found


def table(results: Mapping[str, Mapping[str, Any]], network: Network) -> list[str]:
    """Times and efficiencies on more and more devices, in Markdown.

    Efficiency: images a second of a device beside those of a device alone.
    """
    strategies = [name for name in STRATEGIES if name in results]
    head = [f"{name}: {column}" for name in strategies for column in ("sent by each, GB", "step, ms", "efficiency")]
    lines = [_line(["GPUs", *head]), _line(["---"] * (1 + len(head)))]
    for devices in DEVICES:
        cells = [str(devices)]
        for name in strategies:
            events = events_in(results[name])
            step = 1e3 * times_of(events, devices, network).together
            efficiency = results["alone"]["step_ms"] / step
            cells += [f"{sent_bytes(events, devices) / 1e9:.2f}", f"{step:.1f}", f"{efficiency:.2f}"]
        lines.append(_line(cells))
    return lines


def collectives(events: Sequence[Event], devices: int, network: Network) -> list[Collective]:
    """Those of a schedule, in its order."""
    found: list[Collective] = []
    under_way: dict[str, int] = {}
    for what, *rest in events:
        if what == "start":
            name, kind, whole = rest
            under_way[name] = len(found)
            found.append(Collective(kind, whole, network.seconds(kind, whole, devices), 0.0))
        elif what == "wait":
            under_way.pop(rest[0], None)
        else:
            for i in under_way.values():
                found[i] = found[i]._replace(beside=found[i].beside + rest[0])
    return found


def overlap_table(events: Sequence[Event], devices: int, network: Network, rows: int) -> list[str]:
    """The collectives that take longest, in Markdown."""
    head = ["Collective", "MB", "sending, ms", "kernels beside it, ms"]
    lines = [_line(head), _line(["---"] * len(head))]
    for one in sorted(collectives(events, devices, network), key=lambda one: -one.sending)[:rows]:
        cells = [one.kind, f"{one.whole / 1e6:.1f}", f"{1e3 * one.sending:.2f}", f"{1e3 * one.beside:.2f}"]
        lines.append(_line(cells))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Prints the assumptions and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--rows", type=int, default=8, help="of the table of collectives")
    options = parser.parse_args()
    network = Network()
    try:
        results = read_results(options.results)
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
    print(f"{ALONE.name} alone: {results['alone']['step_ms']} ms a step (modelled). {network}\n")
    print(*table(results, network), sep="\n")
    for name in filter(results.__contains__, STRATEGIES):
        print(f"\n{name} on 8 GPUs\n")
        print(*overlap_table(events_in(results[name]), 8, network, options.rows), sep="\n")


if __name__ == "__main__":
    main()
