"""The cost of giving a segment to a query (Cheng et al. 2021, section 3.3; Cheng et al. 2022, section 3.3).

Axes: b images, q queries, t rows of the segment table, l supervised layers, s points, k1 classes and no-object.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from oneformer_jax.data.batch import Batch
from oneformer_jax.losses.config import CriterionConfig
from oneformer_jax.losses.points import sample_features, sample_segments, uniform_points
from oneformer_jax.models.predictions import LayerPredictions

# Keeps the points of the matching apart from those of the losses, which are drawn from the same key of the step.
STREAM = 0


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

    # One layer at a time: the features at all points of all layers would be larger than the rest of the step's memory.
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

    return lax.map(layer, (outputs.class_logits, outputs.mask_embeddings, points))


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
