"""A training step beside Hugging Face's: `python -m benchmarks.training --backbone swin_t --size 512 --batch 2`.

A step is everything between two batches on both sides: forward with dropout 0.1 and drop path 0.3, matching and losses
of all 10 predictions at 12544 points, backward, clipping, AdamW (PyTorch's fused one). Weights, images, 15 segments an
image and 134 prompts an image are the same; random points and dropout masks are not. Hugging Face encodes the prompts
of each image at 77 tokens, this project all prompts once at their longest length.
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
            partial(ours.Training, workload, weights),
            partial(peer.Training, workload),
            rounds=rounds,
            device=workload.device,
            inspect=duel.losses,
        )
    name = f"training-{workload.backbone}-{workload.size}-b{workload.batch}-{workload.device}"
    duel.save(output, name, {"kind": "training", "workload": dataclasses.asdict(workload)} | result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=BACKBONES, default="swin_t")
    duel.add_options(parser)
    options = parser.parse_args()
    workload = Workload(options.backbone, options.size, options.batch, options.device, training=True)
    contest(workload, options.rounds, options.output)


if __name__ == "__main__":
    main()
