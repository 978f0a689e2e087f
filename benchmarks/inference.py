"""A forward pass beside Hugging Face's: `python -m benchmarks.inference --backbone swin_t --size 512`.

Both sides get the same random weights and the same normalised images, and return the class and mask logits of the last
layer.
"""

from functools import partial
from pathlib import Path

from benchmarks import contest, duel
from benchmarks.workload import Workload


def contestants(workload: Workload, weights: Path) -> contest.Pair:
    """This project's side and Hugging Face's."""
    from benchmarks import ours, peer  # not above: every contestant's process imports this file, and one of the two

    return partial(ours.Inference, workload, weights), partial(peer.Inference, workload)


if __name__ == "__main__":
    contest.compare_models(__doc__, contestants, duel.agreement)
