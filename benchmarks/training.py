"""A training step beside Hugging Face's: `python -m benchmarks.training --backbone swin_t --size 512 --batch 2`.

A step is everything between two batches on both sides: forward with dropout 0.1 and drop path 0.3, matching and losses
of all 10 predictions at 12544 points, backward, clipping, AdamW (PyTorch's fused one). Weights, images, 15 segments an
image and 134 prompts an image are the same; random points and dropout masks are not. Hugging Face encodes the prompts
of each image at 77 tokens, this project each prompt that is shown once, at the longest length.
"""

from functools import partial
from pathlib import Path

from benchmarks import command, comparison
from benchmarks.workload import Workload


def sides(workload: Workload, weights: Path) -> command.Pair:
    """This project's side and Hugging Face's."""
    # Not at the top: the processes of both sides import this file, and each may import one side only.
    from benchmarks import huggingface, this_project

    return partial(this_project.Training, workload, weights), partial(huggingface.Training, workload)


if __name__ == "__main__":
    command.compare_models(__doc__, sides, comparison.losses, training=True)
