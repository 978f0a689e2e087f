"""Which query answers for which segment: costs on the device (Cheng et al. 2021, section 3.3; Cheng et al. 2022,
section 3.3), assignment on the host, and pairs packed for the device.

Axes: b images, q queries, t rows of the segment table, n segments of one image, l supervised layers, g groups of images
(one a device), m slots of pairs in a group, s points, k1 classes and no-object.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key
from scipy.optimize import linear_sum_assignment

from oneformer_jax.data.batch import Batch
from oneformer_jax.losses.points import sample_features, sample_segments, uniform_points
from oneformer_jax.models.predictions import LayerPredictions

HostOrDevice = Any  # np.ndarray on the host, jax.Array on the device

# Keeps the points of the matching apart from those of the losses, which are drawn from the same key of the step.
STREAM = 0
# Pairs are packed in blocks of this many, each of one image: mask logits of a block are one matrix product with the
# features of that image, which are copied once a block.
BLOCK = 8
# The smallest numbers of pairs that a group is padded to; twice, four times, ... these follow.
SMALLEST_SLOTS = (16, 24)
# Slots whose mask losses are computed at once. A processor's cache holds the arrays of two to four; a GPU is filled by
# all of them, and so many at 1024x1024 take 170 MB an array.
SLOTS_ON_CPU, SLOTS_ON_GPU = 4, 64
# Layers whose matching costs are computed at once: a fifth of the kernels, where features at the points of five layers
# take 64 MB an image.
LAYERS_ON_CPU, LAYERS_ON_GPU = 1, 5


@dataclass(frozen=True)
class CriterionConfig:
    """Weights and sampling of the losses (Jain et al. 2023, section 3.4; Cheng et al. 2022, section 3.3).

    The three first weights are also those of the matching cost. `num_points` points stand for a mask: of
    `oversample_ratio * num_points` random ones the `importance_sample_ratio * num_points` most uncertain are kept and
    random ones complete them. Without `deep_supervision` only the last layer is matched and takes part in the loss.

    The choices of a platform (`on`): `slots_at_once` is the largest number of slots whose mask losses are computed
    together, `layers_at_once` that of layers whose matching costs are; with `blocks_apart` the mask logits of one block
    (`BLOCK`) are computed after those of another, and no more than one copy of an image's features is in memory.
    """

    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    contrastive_weight: float = 0.5
    no_object_weight: float = 0.1
    num_points: int = 12544
    oversample_ratio: float = 3.0
    importance_sample_ratio: float = 0.75
    deep_supervision: bool = True
    slots_at_once: int = SLOTS_ON_CPU
    layers_at_once: int = LAYERS_ON_CPU
    blocks_apart: bool = False

    def on(self, mesh: Mesh) -> "CriterionConfig":
        """The same losses, computed as is fast on the devices of `mesh`."""
        if mesh.devices.flat[0].platform == "cpu":
            return replace(self, slots_at_once=SLOTS_ON_CPU, layers_at_once=LAYERS_ON_CPU, blocks_apart=False)
        return replace(self, slots_at_once=SLOTS_ON_GPU, layers_at_once=LAYERS_ON_GPU, blocks_apart=True)

    @property
    def num_oversampled(self) -> int:
        """Random points among which the uncertain ones are looked for."""
        return int(self.oversample_ratio * self.num_points)

    @property
    def num_uncertain(self) -> int:
        """Points kept for their uncertainty; `num_points - num_uncertain` more are random."""
        return int(self.importance_sample_ratio * self.num_points)

    def supervised(self, outputs: LayerPredictions) -> LayerPredictions:
        """The predictions that are matched and enter the loss."""
        if self.deep_supervision:
            return outputs
        last = jax.tree.map(lambda x: x[-1:], (outputs.class_logits, outputs.mask_embeddings))
        return outputs._replace(class_logits=last[0], mask_embeddings=last[1])


def matching_costs(
    outputs: LayerPredictions, batch: Batch, key: Key[Array, ""], config: CriterionConfig
) -> Float[Array, "l b q t"]:
    """Cost of every query for every row of the segment table, in each supervised layer and image.

    `key` belongs to the step; the points of an image depend on it and on the sample alone. Rows of padding get an
    arbitrary cost. No gradient flows back.
    """
    layers = config.supervised(outputs).class_logits.shape[0]
    key = jax.random.fold_in(key, STREAM)
    points = jax.vmap(
        lambda sample: uniform_points(jax.random.fold_in(key, sample), (layers, config.num_points)), out_axes=1
    )(batch.sample)
    return costs_at_points(outputs, batch, points, config)


def costs_at_points(
    outputs: LayerPredictions, batch: Batch, points: Float[Array, "l b s 2"], config: CriterionConfig
) -> Float[Array, "l b q t"]:
    """`matching_costs` at given points, which all masks of a layer and image share."""
    outputs = lax.stop_gradient(config.supervised(outputs))

    # Few layers at a time: the features at all points of all layers would be larger than the rest of the step's memory.
    def layer(inputs: tuple[Array, Array, Array]) -> Array:
        class_logits, mask_embeddings, points = inputs
        features = sample_features(outputs.mask_features, points)
        logits = jnp.einsum("bqc,bpc->bqp", mask_embeddings.astype(float), features, precision="highest")
        segments = sample_segments(batch.segment_index, points, batch.segment_class.shape[1])
        mask_cost, dice_cost = _mask_costs(logits, segments)
        return (
            config.class_weight * _class_cost(class_logits, batch.segment_class)
            + config.mask_weight * mask_cost
            + config.dice_weight * dice_cost
        )

    at_once = config.layers_at_once
    inputs = outputs.class_logits, outputs.mask_embeddings, points
    return lax.map(layer, inputs, batch_size=at_once if at_once > 1 else None)


def _class_cost(logits: Float[Array, "b q k1"], segment_class: Int[Array, "b t"]) -> Float[Array, "b q t"]:
    probability = jax.nn.softmax(logits.astype(float), axis=-1)
    column = jnp.maximum(segment_class, 0)[:, None, :]
    shape = (*logits.shape[:2], segment_class.shape[1])
    return -jnp.take_along_axis(probability, jnp.broadcast_to(column, shape), axis=-1)


def _mask_costs(
    logits: Float[Array, "b q s"], segments: Float[Array, "b t s"]
) -> tuple[Float[Array, "b q t"], Float[Array, "b q t"]]:
    """Binary cross entropy averaged over the points, and dice distance."""

    def overlap(x: Array) -> Array:
        return jnp.einsum("bqp,btp->bqt", x, segments, precision="highest")

    # softplus(-x) t + softplus(x) (1 - t) = softplus(x) - x t
    cross_entropy = (jnp.sum(jax.nn.softplus(logits), axis=-1)[..., None] - overlap(logits)) / logits.shape[-1]
    probability = jax.nn.sigmoid(logits)
    total = jnp.sum(probability, axis=-1)[:, :, None] + jnp.sum(segments, axis=-1)[:, None, :]
    return cross_entropy, 1 - (2 * overlap(probability) + 1) / (total + 1)


class Pairs(NamedTuple):
    """Matched queries and segments. A group holds the images of one device, contiguous in the batch.

    Slot m of a group is row `target[g, m]` of the segment table of image `image[g, m]`, counted within the group. The
    layers share them; only the matched `query[l, g, m]` varies. It is -1 where the slot is padding (and where a segment
    got no query: more segments than queries, or a cost matrix of NaN). Slots of one block belong to one image.
    """

    query: Int[HostOrDevice, "l g m"]
    image: Int[HostOrDevice, "g m"]
    target: Int[HostOrDevice, "g m"]

    @property
    def valid(self) -> Bool[HostOrDevice, "l g m"]:
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
