"""Weak scaling on paper: what a training step sends over the network, and the efficiency that this leaves.

`python -m benchmarks.scaling` prints the tables of docs/multi-host.md. The bytes are those of the collectives in the
compiled step (tests/training/test_topologies.py); bandwidths and the time of a step are assumptions, and are printed.
"""

import argparse
from dataclasses import dataclass
from typing import Literal

Strategy = Literal["ddp", "fsdp"]
FLOAT32 = 4
DEVICES = (8, 64, 512)
# Swin-L with the published decoders at 1024 x 1024: `python cli.py inspect model` counts both. Of operations a second
# an H100 is assumed to reach a fifth of its TF32 peak.
PARAMETERS, OPERATIONS_OF_IMAGE = 236_320_000, 6.046e12
IMAGES, OPERATIONS_PER_SECOND = 2, 100e12
SECONDS = IMAGES * OPERATIONS_OF_IMAGE / OPERATIONS_PER_SECOND


@dataclass(frozen=True)
class Network:
    """Bytes a second that a GPU sends, to others of its host and to other hosts; GPUs of a host; seconds that a message
    takes for one hop of a ring."""

    within: float = 450e9
    between: float = 50e9
    host: int = 8
    latency: float = 10e-6


def sent_bytes(parameters: int, devices: int, strategy: Strategy, *, batches: int = 1) -> float:
    """What each device sends in a step of so many batches, with rings: gradients are reduced once a batch.

    ddp: all-reduce of the gradients. fsdp: two all-gathers of the parameters and a reduce-scatter of the gradients.
    """
    rounds = 2 if strategy == "ddp" else 3
    return batches * rounds * FLOAT32 * parameters * (devices - 1) / devices


def seconds_on_the_network(parameters: int, devices: int, strategy: Strategy, network: Network) -> float:
    """Time of `sent_bytes` in one message a collective, which XLA combines them to."""
    rate = network.within if devices <= network.host else network.between
    rounds = 2 if strategy == "ddp" else 3
    return sent_bytes(parameters, devices, strategy) / rate + rounds * (devices - 1) * network.latency


def efficiency(compute: float, parameters: int, devices: int, strategy: Strategy, network: Network) -> float:
    """Images a second of a device beside those of a device alone, where nothing overlaps: the least to be expected."""
    return compute / (compute + seconds_on_the_network(parameters, devices, strategy, network))


def table(parameters: int, compute: float, network: Network) -> list[str]:
    """The rows of the page, in Markdown."""
    lines = [
        "| GPUs | ddp: sent by each, GB | ddp: efficiency | fsdp: sent by each, GB | fsdp: efficiency |",
        "| --- | --- | --- | --- | --- |",
    ]
    for devices in DEVICES:
        cells = [str(devices)]
        for strategy in ("ddp", "fsdp"):
            cells.append(f"{sent_bytes(parameters, devices, strategy) / 1e9:.2f}")
            cells.append(f"{efficiency(compute, parameters, devices, strategy, network):.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Prints the assumptions and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, default=PARAMETERS, help="of the model (inspect model)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a step on one GPU")
    arguments = parser.parse_args()
    print(f"{arguments.parameters / 1e6:.0f} M parameters, {arguments.seconds:.2f} s a step, {Network()}")
    print(*table(arguments.parameters, arguments.seconds, Network()), sep="\n")


if __name__ == "__main__":
    main()
