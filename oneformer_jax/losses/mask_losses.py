"""Binary cross entropy and dice of matched masks, at uncertain points (Cheng et al. 2022, section 3.3).

Axes of one group: b images, q queries, t rows of the segment table, l supervised layers, m slots of pairs, s points
of a mask, n rows of points, h w c mask features and their channels, r y x planes of a segment map.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from oneformer_jax.losses.matching import BLOCK, CriterionConfig
from oneformer_jax.losses.points import sample_masks, sample_segment, uncertain_weights


def pair_mask_logits(
    mask_embeddings: Float[Array, "l b q c"],
    mask_features: Float[Array, "b h w c"],
    query: Int[Array, "l m"],
    image: Int[Array, " m"],
    config: CriterionConfig,
) -> Float[Array, "m l h w"]:
    """Mask logits of matched queries alone, in float32; slots come in blocks of one image (`assignment.Pairs`)."""
    layers, slots = query.shape
    rows = jax.vmap(lambda embeddings, query: embeddings[image, query], out_axes=1)(
        mask_embeddings, jnp.maximum(query, 0)
    )

    def of_block(rows: Array, image: Array) -> Array:
        features, dtype = mask_features[image], jnp.result_type(float)
        return jnp.einsum("kc,hwc->khw", rows, features, precision="highest", preferred_element_type=dtype)

    blocks = rows.reshape(slots // BLOCK, BLOCK * layers, -1), image[::BLOCK]
    if config.blocks_apart:
        taken_again = jax.checkpoint(of_block)  # else the features of all blocks are kept for the backward pass
        logits = lax.map(lambda block: taken_again(*block), blocks)
    else:
        logits = jax.vmap(of_block)(*blocks)
    return logits.reshape(slots, layers, *mask_features.shape[1:3])


def pair_losses(
    mask_logits: Float[Array, "m l h w"],
    segment_index: Int[Array, "b r y x"],
    segment_plane: Int[Array, "b t"],
    image: Int[Array, " m"],
    target: Int[Array, " m"],
    points: Float[Array, "m l s 2"],
    config: CriterionConfig,
) -> tuple[Float[Array, "m l"], Float[Array, "m l"], Float[Array, "m l"]]:
    """The weighted sum of both losses of each layer of each slot, and both of them.

    Only the sum is differentiable. Its gradient is computed with it, some slots at a time (`config.slots_at_once`):
    none of their arrays waits for the backward pass.
    """
    slots, layers = points.shape[:2]
    at_once = next(number for number in range(config.slots_at_once, 0, -1) if slots % number == 0)
    planes = segment_index.shape[1]
    segment_maps = segment_index.reshape(-1, *segment_index.shape[2:])

    def some(chunk: tuple[Array, ...]) -> tuple[tuple[Array, ...], Array]:
        maps, plane, segment, points = chunk
        segments = sample_segment(segment_maps, plane, segment, points)

        def total(maps: Array) -> tuple[Array, tuple[Array, ...]]:
            logits = sample_masks(maps, points)
            cross_entropy, dice = weighted_losses(logits, segments, point_weights(logits, config))
            weighted = config.mask_weight * cross_entropy + config.dice_weight * dice
            return jnp.sum(weighted), (weighted, cross_entropy, dice)

        gradient, losses = jax.grad(total, has_aux=True)(maps)
        return losses, gradient

    def chunks(x: Array) -> Array:
        return x.reshape(slots // at_once, at_once * layers, *x.shape[2:])

    def every_layer(x: Array) -> Array:
        return chunks(jnp.broadcast_to(x[:, None], (slots, layers)))

    @jax.custom_vjp
    def losses(mask_logits: Array, *rest: Array) -> tuple[Array, ...]:
        return forward(mask_logits, *rest)[0]

    def forward(mask_logits: Array, *rest: Array) -> tuple[tuple[Array, ...], Array]:
        values, gradient = lax.map(some, (chunks(mask_logits), *rest))
        return tuple(x.reshape(slots, layers) for x in values), gradient.reshape(mask_logits.shape)

    def backward(gradient: Array, cotangents: tuple[Array, ...]) -> tuple[Array | None, ...]:
        return cotangents[0][:, :, None, None] * gradient, None, None, None

    losses.defvjp(forward, backward)
    place = every_layer(image * planes + segment_plane[image, target]), every_layer(target)
    weighted, cross_entropy, dice = losses(mask_logits, *place, chunks(points))
    return weighted, cross_entropy, dice


def point_weights(logits: Float[Array, "n s"], config: CriterionConfig) -> Float[Array, "n s"]:
    """Weights that choose the points: they sum to `config.num_points`. No gradient flows back.

    The first `config.num_oversampled` points of a row compete for their uncertainty, the others all count.
    """
    logits = lax.stop_gradient(logits)
    chosen = uncertain_weights(logits[:, : config.num_oversampled], config.num_uncertain)
    return jnp.concatenate([chosen, jnp.ones_like(logits[:, config.num_oversampled :])], axis=1)


def weighted_losses(
    logits: Float[Array, "n s"], segments: Float[Array, "n s"], weights: Float[Array, "n s"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Mean binary cross entropy and dice loss (1 added above and below) of each row."""
    cross_entropy = jnp.sum(weights * (jax.nn.softplus(logits) - logits * segments), axis=-1) / jnp.sum(
        weights, axis=-1
    )
    probability = weights * jax.nn.sigmoid(logits)
    overlap = jnp.sum(probability * segments, axis=-1)
    total = jnp.sum(probability, axis=-1) + jnp.sum(weights * segments, axis=-1)
    return cross_entropy, 1 - (2 * overlap + 1) / (total + 1)
