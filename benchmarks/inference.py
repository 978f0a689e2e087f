"""A forward pass beside Hugging Face's: `python -m benchmarks.inference --backbone swin_t --size 512`.

Both sides get the same random weights and the same normalised images, and return the class and mask logits of the last
layer.
"""

import argparse
import dataclasses
import tempfile
from functools import partial
from pathlib import Path

from benchmarks import duel
from benchmarks.workload import BACKBONES, Workload


def contest(workload: Workload, rounds: int, output: Path) -> None:
    """Measures and writes one row."""
    from benchmarks import ours, peer  # not above: every contestant's process imports this file, and one of the two

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.safetensors"
        duel.in_process(partial(peer.export_weights, workload, weights))
        result = duel.duel(
            partial(ours.Inference, workload, weights),
            partial(peer.Inference, workload),
            rounds=rounds,
            device=workload.device,
            inspect=duel.agreement,
        )
    name = f"inference-{workload.backbone}-{workload.size}-b{workload.batch}-{workload.device}"
    duel.save(output, name, {"kind": "inference", "workload": dataclasses.asdict(workload)} | result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=BACKBONES, default="swin_t")
    duel.add_options(parser)
    options = parser.parse_args()
    workload = Workload(options.backbone, options.size, options.batch, options.device)
    contest(workload, options.rounds, options.output)


if __name__ == "__main__":
    main()
