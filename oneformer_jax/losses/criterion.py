"""The training objective: all losses of all layers in one computation over matched pairs."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from oneformer_jax.data.batch import Batch
from oneformer_jax.losses.assignment import Pairs
from oneformer_jax.losses.class_loss import class_loss
from oneformer_jax.losses.config import CriterionConfig
from oneformer_jax.losses.contrastive_loss import contrastive_loss
from oneformer_jax.losses.mask_losses import pair_losses, pair_mask_logits
from oneformer_jax.losses.normalisers import Normalisers
from oneformer_jax.losses.points import uniform_points
from oneformer_jax.models.predictions import LayerPredictions

# Keeps the points of the losses apart from those of the matching, which are drawn from the same key of the step.
STREAM = 1


def criterion(
    outputs: LayerPredictions,
    batch: Batch,
    pairs: Pairs,
    text_queries: Float[Array, "b q d"],
    logit_scale: Float[Array, ""],
    over: Normalisers,
    key: Key[Array, ""],
    config: CriterionConfig,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The weighted sum of the losses, and each of them unweighted.

    `key` belongs to the step; the points of a pair depend on it, on the sample and on the row of the segment table,
    not on how images are grouped. Only the sum is differentiable. The others are `loss_ce`, `loss_mask` and `loss_dice`
    with one value a supervised layer, the last being the model's output, and the scalar `loss_contrastive`.
    """
    points = _pair_points(batch, pairs, jax.random.fold_in(key, STREAM), config)
    return criterion_at_points(outputs, batch, pairs, text_queries, logit_scale, over, points, config)


def criterion_at_points(
    outputs: LayerPredictions,
    batch: Batch,
    pairs: Pairs,
    text_queries: Float[Array, "b q d"],
    logit_scale: Float[Array, ""],
    over: Normalisers,
    points: Float[Array, "g m l s 2"],
    config: CriterionConfig,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """`criterion` at given points: the oversampled ones of each pair, then its random ones."""
    outputs = config.supervised(outputs)
    target_class = _target_class(outputs, batch, pairs)
    weighted, cross_entropy, dice = _mask_losses(outputs, batch, pairs, points, config)
    losses = {
        "loss_ce": class_loss(outputs.class_logits, target_class, config.no_object_weight, over.class_weight),
        "loss_mask": jnp.sum(cross_entropy, axis=(1, 2)) / over.masks,
        "loss_dice": jnp.sum(dice, axis=(1, 2)) / over.masks,
        "loss_contrastive": contrastive_loss(outputs.object_queries, text_queries, logit_scale) / over.batches,
    }
    total = (
        config.class_weight * jnp.sum(losses["loss_ce"])
        + jnp.sum(weighted) / over.masks
        + config.contrastive_weight * losses["loss_contrastive"]
    )
    return total, losses


def _groups(x: Array, num_groups: int, axis: int = 0) -> Array:
    """Splits the axis of images into groups of contiguous ones: what a device holds stays together."""
    return x.reshape(*x.shape[:axis], num_groups, -1, *x.shape[axis + 1 :])


def _pair_points(batch: Batch, pairs: Pairs, key: Key[Array, ""], config: CriterionConfig) -> Float[Array, "g m l s 2"]:
    layers, num_groups, _ = pairs.query.shape
    count = config.num_oversampled + config.num_points - config.num_uncertain

    def pair_key(sample: Int[Array, ""], target: Int[Array, ""]) -> Key[Array, ""]:
        return jax.random.fold_in(jax.random.fold_in(key, sample), target)

    def group_keys(samples: Int[Array, " b"], image: Int[Array, " m"], target: Int[Array, " m"]) -> Key[Array, " m"]:
        return jax.vmap(pair_key)(samples[image], target)

    keys = jax.vmap(group_keys)(_groups(batch.sample, num_groups), pairs.image, pairs.target)

    def layer_points(layer: Int[Array, ""]) -> Float[Array, "g m s 2"]:
        return jax.vmap(jax.vmap(lambda key: uniform_points(jax.random.fold_in(key, layer), (count,))))(keys)

    # A loop, as XLA would otherwise fuse the drawing into every use of the points.
    return jnp.moveaxis(lax.map(layer_points, jnp.arange(layers)), 0, 2)


def _mask_losses(
    outputs: LayerPredictions, batch: Batch, pairs: Pairs, points: Float[Array, "g m l s 2"], config: CriterionConfig
) -> tuple[Float[Array, "l g m"], ...]:
    """`mask_losses.pair_losses` of every slot, 0 where it holds no pair. Groups do not see each other's images."""

    def group(
        mask_embeddings: Array,
        mask_features: Array,
        segment_index: Array,
        segment_plane: Array,
        query: Array,
        image: Array,
        target: Array,
        points: Array,
    ) -> tuple[Array, ...]:
        logits = pair_mask_logits(mask_embeddings, mask_features, query, image)
        return pair_losses(logits, segment_index, segment_plane, image, target, points, config)

    num_groups = pairs.query.shape[1]
    losses = jax.vmap(group, in_axes=(1, 0, 0, 0, 1, 0, 0, 0))(
        _groups(outputs.mask_embeddings, num_groups, axis=1),
        _groups(outputs.mask_features, num_groups),
        _groups(batch.segment_index, num_groups),
        _groups(batch.segment_plane, num_groups),
        pairs.query,
        pairs.image,
        pairs.target,
        points,
    )
    return tuple(jnp.where(pairs.valid, jnp.moveaxis(loss, 2, 0), 0) for loss in losses)


def _target_class(outputs: LayerPredictions, batch: Batch, pairs: Pairs) -> Int[Array, "l b q"]:
    """The class that each query should predict: that of its segment, or no-object."""
    layers, images, queries, classes = outputs.class_logits.shape
    num_groups = pairs.image.shape[0]

    def group(segment_class: Int[Array, "b t"], query: Array, image: Array, target: Array) -> Int[Array, "b q"]:
        empty = jnp.full((images // num_groups, queries), classes - 1, jnp.int32)
        # A slot without a pair is sent past the end, where nothing is written.
        row = jnp.where(query >= 0, query, queries)
        return empty.at[image, row].set(segment_class[image, target].astype(jnp.int32), mode="drop")

    over_groups = jax.vmap(group)
    over_layers = jax.vmap(over_groups, in_axes=(None, 0, None, None))
    target_class = over_layers(_groups(batch.segment_class, num_groups), pairs.query, pairs.image, pairs.target)
    return target_class.reshape(layers, images, queries)
