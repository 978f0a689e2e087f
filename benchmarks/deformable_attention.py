"""One deformable-attention layer, forward and backward, beside the one of `transformers`:

    python -m benchmarks.deformable_attention --size 512    # 5376 queries, 8 heads, 3 levels, 4 points, 32 channels

Without the linear projections around it. Both sides return the sums and the gradients of values, locations and weights.
"""

from functools import partial

from benchmarks import command, comparison
from benchmarks.workload import AttentionWorkload


def main() -> None:
    options = command.option_parser(__doc__).parse_args()
    # Not at the top: the processes of both sides import this file, and each may import one side only.
    from benchmarks import huggingface, this_project

    workload = AttentionWorkload(options.size, options.batch, options.device)
    pair = partial(this_project.Attention, workload), partial(huggingface.Attention, workload)
    command.measure(workload, pair, options, inspect=comparison.agreement, count_flops=False)


if __name__ == "__main__":
    main()
