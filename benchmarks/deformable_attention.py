"""One deformable-attention layer, forward and backward, beside the one of `transformers`:

    python -m benchmarks.deformable_attention --size 512    # 5376 queries, 8 heads, 3 levels, 4 points, 32 channels

Without the linear projections around it. Both sides return the sums and the gradients of values, locations and weights.
"""

from functools import partial

from benchmarks import contest, duel
from benchmarks.workload import AttentionWorkload


def main() -> None:
    options = contest.option_parser(__doc__).parse_args()
    from benchmarks import ours, peer  # not above: every contestant's process imports this file, and one of the two

    workload = AttentionWorkload(options.size, options.batch, options.device)
    pair = partial(ours.Attention, workload), partial(peer.Attention, workload)
    contest.measure(workload, pair, options, inspect=duel.agreement, count_flops=False)


if __name__ == "__main__":
    main()
