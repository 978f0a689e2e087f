"""A forward pass beside Hugging Face's: `python -m benchmarks.inference --backbone swin_t --size 512`.

Both sides get the same random weights and the same normalised images, and return the class and mask logits of the last
layer.
"""

from functools import partial
from pathlib import Path

from benchmarks import command, comparison
from benchmarks.workload import Workload


def sides(workload: Workload, weights: Path) -> command.Pair:
    """This project's side and Hugging Face's."""
    # Not at the top: the processes of both sides import this file, and each may import one side only.
    from benchmarks import huggingface, this_project

    return partial(this_project.Inference, workload, weights), partial(huggingface.Inference, workload)


if __name__ == "__main__":
    command.compare_models(__doc__, sides, comparison.agreement)
