"""A training step beside Hugging Face's: `python -m benchmarks.training --backbone swin_t --size 512 --batch 2`.

A step is everything between two batches on both sides: forward with dropout 0.1 and drop path 0.3, matching and losses
of all 10 predictions at 12544 points, backward, clipping, AdamW (PyTorch's fused one). Weights, images, 15 segments an
image and 134 prompts an image are the same; random points and dropout masks are not. Hugging Face encodes the prompts
of each image at 77 tokens, this project each prompt that is shown once, at the longest length.
"""

from functools import partial
from pathlib import Path

from benchmarks import contest, duel
from benchmarks.workload import Workload


def contestants(workload: Workload, weights: Path) -> contest.Pair:
    """This project's side and Hugging Face's."""
    from benchmarks import ours, peer  # not above: every contestant's process imports this file, and one of the two

    return partial(ours.Training, workload, weights), partial(peer.Training, workload)


if __name__ == "__main__":
    contest.compare_models(__doc__, contestants, duel.losses, training=True)
