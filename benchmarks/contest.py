"""From the command line to a result file: what every comparison with Hugging Face shares. Imports neither side."""

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import duel
from benchmarks.workload import BACKBONES, AttentionWorkload, Workload

RESULTS = Path(__file__).parent / "results"

Pair = tuple[duel.Contestant, duel.Contestant]


def option_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every comparison understands."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=_side, default=512, help="side of the square images, a multiple of 32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side")
    parser.add_argument("--apart", action="store_true", help="never hold both sides in memory")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the result")
    return parser


def _side(text: str) -> int:
    if int(text) < 32 or int(text) % 32:
        raise argparse.ArgumentTypeError(f"{text} is no multiple of 32")
    return int(text)


def compare_models(
    description: str | None,
    contestants: Callable[[Workload, Path], Pair],
    inspect: duel.Inspection,
    *,
    training: bool = False,
) -> None:
    """The command of a comparison of whole models. `contestants` gets the file of the weights from which both start."""
    parser = option_parser(description)
    parser.add_argument("--backbone", choices=BACKBONES, default="swin_t")
    options = parser.parse_args()
    workload = Workload(options.backbone, options.size, options.batch, options.device, training)
    from benchmarks import peer  # not above: every contestant's process imports this file, and one of the two sides

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        duel.in_process(partial(peer.export_weights, workload, weights))
        measure(workload, contestants(workload, weights), options, inspect=inspect)


def measure(
    workload: Workload | AttentionWorkload,
    contestants: Pair,
    options: argparse.Namespace,
    *,
    inspect: duel.Inspection,
    count_flops: bool = True,
) -> None:
    """Lets the two take turns and writes the result."""
    result = duel.duel(
        *contestants,
        rounds=options.rounds,
        device=options.device,
        inspect=inspect,
        count_flops=count_flops,
        apart=options.apart,
    )
    described = {"kind": workload.kind, "workload": dataclasses.asdict(workload)}
    save(options.output, workload.name, described | result)


def save(folder: Path, name: str, result: dict[str, Any]) -> None:
    """Writes `<folder>/<name>.json`, and the main figures to the terminal."""
    path = write(folder, name, result)
    ours, peer = (np.median(result[side]["times_ms"]) for side in ("ours", "peer"))
    print(f"{name}: ours {ours:.0f} ms, Hugging Face {peer:.0f} ms, ratio {peer / ours:.2f} -> {path}")


def write(folder: Path, name: str, result: dict[str, Any]) -> Path:
    """Writes `<folder>/<name>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
