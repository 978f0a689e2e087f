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

from benchmarks import comparison
from benchmarks.workload import BACKBONES, PRECISIONS, AttentionWorkload, Workload

RESULTS = Path(__file__).parent / "results"

Pair = tuple[comparison.Side, comparison.Side]


def option_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that every comparison understands."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=_side, default=512, help="side of the square images, a multiple of 32")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each side")
    parser.add_argument("--apart", action="store_true", help="never hold both sides in memory")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the result")
    return parser


def _side(text: str) -> int:
    if int(text) < 32 or int(text) % 32:
        raise argparse.ArgumentTypeError(f"{text} is not a multiple of 32")
    return int(text)


def compare_models(
    description: str | None,
    sides: Callable[[Workload, Path], Pair],
    inspect: comparison.Inspection,
    *,
    training: bool = False,
) -> None:
    """The command of a comparison of whole models. `sides` gets the file of the weights from which both start."""
    parser = option_parser(description)
    parser.add_argument("--backbone", choices=BACKBONES, default="swin_t")
    parser.add_argument("--precision", choices=PRECISIONS, default="32", help="of products, on both sides")
    options = parser.parse_args()
    workload = Workload(options.backbone, options.size, options.batch, options.device, training, options.precision)
    # Not at the top: the processes of both sides import this file, and each may import one side only.
    from benchmarks import huggingface

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        comparison.in_process(partial(huggingface.export_weights, workload, weights))
        measure(workload, sides(workload, weights), options, inspect=inspect)


def measure(
    workload: Workload | AttentionWorkload,
    sides: Pair,
    options: argparse.Namespace,
    *,
    inspect: comparison.Inspection,
    count_flops: bool = True,
) -> None:
    """Measures both sides and writes the result."""
    result = comparison.compare(
        *sides,
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
    project, reference = (np.median(result[side]["times_ms"]) for side in ("this_project", "reference"))
    print(
        f"{name}: this project {project:.0f} ms, Hugging Face {reference:.0f} ms, "
        f"ratio {reference / project:.2f} -> {path}"
    )


def write(folder: Path, name: str, result: dict[str, Any]) -> Path:
    """Writes `<folder>/<name>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
