"""Which query answers for which segment: assignment on the host, pairs packed for the device.

Axes: b images, q queries, t rows of the segment table, n segments of one image, l supervised layers, g groups of images
(one a device), m slots of pairs in a group.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

Array = Any  # np.ndarray on the host, jax.Array on the device

# Pairs are packed in blocks of this many, each of one image: mask logits of a block are one matrix product with the
# features of that image, which are copied once a block.
BLOCK = 8
# The smallest numbers of pairs that a group is padded to; twice, four times, ... these follow.
SMALLEST_SLOTS = (16, 24)


class Pairs(NamedTuple):
    """Matched queries and segments. A group holds the images of one device, contiguous in the batch.

    Slot m of a group is row `target[g, m]` of the segment table of image `image[g, m]`, counted within the group. The
    layers share them; only the matched `query[l, g, m]` varies. It is -1 where the slot is padding (and where a segment
    got no query: more segments than queries, or a cost matrix of NaN). Slots of one block belong to one image.
    """

    query: Int[Array, "l g m"]
    image: Int[Array, "g m"]
    target: Int[Array, "g m"]

    @property
    def valid(self) -> Bool[Array, "l g m"]:
        return self.query >= 0


def pair_slots(num_segments: Int[np.ndarray, " b"], num_groups: int) -> int:
    """The number of slots of a group: the first of 16, 24, 32, 48, 64, 96, ... in which the fullest group finds room.

    The losses cost as much as their slots, and are compiled for each of these numbers once. Every process must call it
    with the segment counts of the global batch, so that all of them compile the same.
    """
    blocks = -(-num_segments.reshape(num_groups, -1) // BLOCK)
    needed = int(blocks.sum(axis=1).max()) * BLOCK
    return min(first << max(0, math.ceil(math.log2(max(needed, 1) / first))) for first in SMALLEST_SLOTS)


def assign(
    costs: Float[np.ndarray, "l b q t"], num_segments: Int[np.ndarray, " b"], *, num_groups: int, slots: int
) -> Pairs:
    """Minimum-cost assignment of every layer and image, over the first `num_segments` columns of its cost matrix.

    `costs` may be the part of the global batch that this process holds, in `num_groups` groups of equally many images;
    `slots` comes from `pair_slots`. A matrix of NaN alone matches nothing and single NaN count as 100, as in the
    original; infinities count as very large.
    """
    layers, images, _, _ = costs.shape
    per_group = images // num_groups
    query = np.full((layers, num_groups, slots), -1, np.int32)
    image = np.zeros((num_groups, slots), np.int32)
    target = np.zeros((num_groups, slots), np.int32)
    for group in range(num_groups):
        start = 0
        for local in range(per_group):
            index = group * per_group + local
            count = int(num_segments[index])
            stop = start + -(-count // BLOCK) * BLOCK
            image[group, start:stop] = local
            target[group, start : start + count] = np.arange(count)
            for layer in range(layers):
                query[layer, group, start : start + count] = _matched_queries(costs[layer, index, :, :count])
            start = stop
    return Pairs(query, image, target)


def _matched_queries(cost: Float[np.ndarray, "q n"]) -> Int[np.ndarray, " n"]:
    """The query of every segment, -1 for none."""
    matched = np.full(cost.shape[1], -1, np.int32)
    if not np.isnan(cost).all():
        rows, columns = linear_sum_assignment(np.nan_to_num(cost, nan=100.0, posinf=1e9, neginf=-1e9))
        matched[columns] = rows
    return matched
