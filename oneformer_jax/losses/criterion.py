"""What a training minimises, as one argument of the training step: all losses of all layers in one computation over
matched pairs, and what their sums are divided by.

Axes: b images, q queries, t rows of the segment table, l supervised layers, g groups of images (one a device), m slots
of pairs in a group, s points of a mask, k1 classes and no-object, d width of the queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key, PyTree

from oneformer_jax.data.batch import Batch
from oneformer_jax.losses.mask_losses import pair_losses, pair_mask_logits
from oneformer_jax.losses.matching import CriterionConfig, Pairs, matching_costs
from oneformer_jax.losses.points import uniform_points
from oneformer_jax.models.predictions import LayerPredictions, TrainingOutputs

# Keeps the points of the losses apart from those of the matching, which are drawn from the same key of the step.
STREAM = 1
MAX_CONTRASTIVE_SCALE = 100.0


@runtime_checkable
class Objective(Protocol):
    """All three functions are traced by `jax.jit`: they must be pure. Random draws come from `key`, which belongs to
    the step, and should depend on the sample (`batch.sample`), not on its place in the batch.

    Between `costs` and `loss` the host gives each segment to a query of each layer, at the least cost
    (`losses.matching`).
    """

    def normalisers(self, segment_classes: Sequence[Int[Array, "_ t"]], num_queries: int) -> PyTree:
        """Numbers that the losses of one update share, from the segment tables of all its batches."""

    def costs(self, outputs: TrainingOutputs, batch: Batch, key: Key[Array, ""]) -> Float[Array, "l b q t"]:
        """The cost of every query for every segment in each layer that takes part; no gradient flows back."""

    def loss(
        self, outputs: TrainingOutputs, batch: Batch, pairs: Pairs, normalisers: PyTree, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """What this batch adds to the loss of the update, and its parts by name; of a part with one value a layer the
        last is reported."""


class Normalisers(NamedTuple):
    """What the sums over the batches of one update are divided by: then the losses of its batches add up to its loss.

    `masks` counts segments, `class_weight` sums the weights of the queries' classes. The contrastive loss compares the
    images of one batch: of its values over `batches` batches the mean is taken.
    """

    masks: Float[Array, ""]
    class_weight: Float[Array, ""]
    batches: Float[Array, ""]


@dataclass(frozen=True)
class OneFormerObjective:
    """OneFormer's own (Jain et al. 2023, section 3): classes, masks, and the contrast of queries and texts."""

    config: CriterionConfig = field(default_factory=CriterionConfig)

    def normalisers(self, segment_classes: Sequence[Int[Array, "_ t"]], num_queries: int) -> Normalisers:
        """The normalisers of an update with batches of these (global) segment tables."""
        segments = jnp.concatenate([jnp.sum(classes >= 0, axis=1) for classes in segment_classes])
        matched = jnp.sum(jnp.minimum(segments, num_queries))  # each segment gets a query, while there are any
        without = len(segments) * num_queries - matched
        # The mean number of segments a device times the number of devices: what the original's processes agree on.
        masks = jnp.maximum(jnp.sum(segments), 1)
        numbers = masks, matched + self.config.no_object_weight * without, len(segment_classes)
        return Normalisers(*(jnp.asarray(number, float) for number in numbers))

    def costs(self, outputs: TrainingOutputs, batch: Batch, key: Key[Array, ""]) -> Float[Array, "l b q t"]:
        return matching_costs(outputs.layers, batch, key, self.config)

    def loss(
        self, outputs: TrainingOutputs, batch: Batch, pairs: Pairs, normalisers: Normalisers, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """The weighted sum of the losses, and each of them unweighted.

        The points of a pair depend on the key, on the sample and on the row of the segment table, not on how images
        are grouped. Only the sum is differentiable. The others are `loss_ce`, `loss_mask` and `loss_dice` with one
        value a supervised layer, the last being the model's output, and the scalar `loss_contrastive`.
        """
        points = _pair_points(batch, pairs, jax.random.fold_in(key, STREAM), self.config)
        return criterion_at_points(outputs, batch, pairs, normalisers, points, self.config)


def criterion_at_points(
    outputs: TrainingOutputs,
    batch: Batch,
    pairs: Pairs,
    over: Normalisers,
    points: Float[Array, "g m l s 2"],
    config: CriterionConfig,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """`OneFormerObjective.loss` at given points: the oversampled ones of each pair, then its random ones."""
    layers, text_queries, logit_scale = outputs
    layers = config.supervised(layers)
    target_class = _target_class(layers, batch, pairs)
    weighted, cross_entropy, dice = _mask_losses(layers, batch, pairs, points, config)
    losses = {
        "loss_ce": class_loss(layers.class_logits, target_class, config.no_object_weight, over.class_weight),
        "loss_mask": jnp.sum(cross_entropy, axis=(1, 2)) / over.masks,
        "loss_dice": jnp.sum(dice, axis=(1, 2)) / over.masks,
        "loss_contrastive": contrastive_loss(layers.object_queries, text_queries, logit_scale) / over.batches,
    }
    total = (
        config.class_weight * jnp.sum(losses["loss_ce"])
        + jnp.sum(weighted) / over.masks
        + config.contrastive_weight * losses["loss_contrastive"]
    )
    return total, losses


def class_loss(
    class_logits: Float[Array, "l b q k1"],
    target_class: Int[Array, "l b q"],
    no_object_weight: float,
    total_weight: Float[Array, ""],
) -> Float[Array, " l"]:
    """Cross entropy of the classes of all queries: their weighted sum over `total_weight`, layer by layer. No-object,
    the last class, weighs less."""
    log_probability = jax.nn.log_softmax(class_logits.astype(float), axis=-1)
    likelihood = jnp.take_along_axis(log_probability, target_class[..., None], axis=-1)[..., 0]
    weights = jnp.where(target_class == class_logits.shape[-1] - 1, no_object_weight, 1.0)
    return -jnp.sum(weights * likelihood, axis=(1, 2)) / total_weight


def contrastive_loss(
    object_queries: Float[Array, "b q d"], text_queries: Float[Array, "b q d"], logit_scale: Float[Array, ""]
) -> Float[Array, ""]:
    """Cross entropy of finding an image's text among the texts of the global batch, and the reverse (Jain et al. 2023,
    section 3.3).

    `logit_scale` is the logarithm of the inverse temperature, which stays below 100. The loss of one image is 0.
    """
    images, texts = _normalized(object_queries), _normalized(text_queries)
    scale = jnp.minimum(jnp.exp(logit_scale), MAX_CONTRASTIVE_SCALE)
    logits = scale * jnp.einsum("ix,jx->ij", images, texts, precision="highest")
    image_to_text = jnp.diagonal(jax.nn.log_softmax(logits, axis=1))
    text_to_image = jnp.diagonal(jax.nn.log_softmax(logits, axis=0))
    return -jnp.mean(image_to_text) - jnp.mean(text_to_image)


def _normalized(queries: Float[Array, "b q d"]) -> Float[Array, "b qd"]:
    flat = queries.astype(float).reshape(len(queries), -1)
    # The norm is at least 1e-12; the root is taken after the maximum so that its gradient is finite at 0.
    return flat * lax.rsqrt(jnp.maximum(jnp.sum(flat**2, axis=-1, keepdims=True), 1e-24))


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
        masks: tuple[Array, Array], segments: tuple[Array, Array], pairs: Pairs, points: Array
    ) -> Sequence[Array]:
        logits = pair_mask_logits(*masks, pairs.query, pairs.image, config)
        return pair_losses(logits, *segments, pairs.image, pairs.target, points, config)

    num_groups = pairs.query.shape[1]
    masks = _groups(outputs.mask_embeddings, num_groups, axis=1), _groups(outputs.mask_features, num_groups)
    segments = _groups(batch.segment_index, num_groups), _groups(batch.segment_plane, num_groups)
    losses = jax.vmap(group, in_axes=((1, 0), 0, Pairs(1, 0, 0), 0))(masks, segments, pairs, points)
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

    over_layers = jax.vmap(jax.vmap(group), in_axes=(None, 0, None, None))
    target_class = over_layers(_groups(batch.segment_class, num_groups), pairs.query, pairs.image, pairs.target)
    return target_class.reshape(layers, images, queries)
