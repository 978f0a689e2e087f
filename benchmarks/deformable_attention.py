"""One deformable-attention layer, forward and backward, beside the one of `transformers`:

    python -m benchmarks.deformable_attention --size 512    # 5376 queries, 8 heads, 3 levels, 4 points, 32 channels

Without the linear projections around it. Both sides return the sums and the gradients of values, locations and weights.
"""

import argparse
import dataclasses
from functools import partial

from benchmarks import duel
from benchmarks.workload import AttentionWorkload


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    duel.add_options(parser)
    options = parser.parse_args()
    from benchmarks import ours, peer  # not above: every contestant's process imports this file, and one of the two

    workload = AttentionWorkload(options.size, options.batch, options.device)
    result = duel.duel(
        partial(ours.Attention, workload),
        partial(peer.Attention, workload),
        rounds=options.rounds,
        device=options.device,
        inspect=duel.agreement,
        count_flops=False,
    )
    name = f"deformable_attention-{workload.size}-b{workload.batch}-{workload.device}"
    duel.save(options.output, name, {"kind": "deformable attention", "workload": dataclasses.asdict(workload)} | result)


if __name__ == "__main__":
    main()
