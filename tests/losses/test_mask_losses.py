"""The losses of all slots in chunks, with their gradients, against one slot at a time and automatic differentiation."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneformer_jax.losses.mask_losses import pair_losses, point_weights, weighted_losses
from oneformer_jax.losses.matching import BLOCK, SLOTS_ON_CPU, SLOTS_ON_GPU, CriterionConfig
from oneformer_jax.losses.points import sample_masks, sample_segment

LAYERS, SIDE = 3, 8
CONFIG = CriterionConfig(mask_weight=3.0, dice_weight=2.0, num_points=24)
COUNT = CONFIG.num_oversampled + CONFIG.num_points - CONFIG.num_uncertain


@pytest.mark.slow
def test_values_and_gradients_are_those_of_single_slots() -> None:
    rng = np.random.default_rng(0)
    slots = 2 * BLOCK
    mask_logits = jnp.asarray(rng.normal(size=(slots, LAYERS, SIDE, SIDE)), jnp.float32)
    points = jnp.asarray(rng.uniform(size=(slots, LAYERS, COUNT, 2)), jnp.float32)
    segment_index = jnp.asarray(rng.integers(-1, 5, (2, 2, 16, 16)), jnp.int16)  # two images of two planes
    segment_plane = jnp.asarray(rng.integers(0, 2, (2, 5)), jnp.int32)
    image = jnp.repeat(jnp.arange(2), BLOCK)
    target = jnp.asarray(rng.integers(0, 5, slots), jnp.int32)
    share = jnp.asarray(rng.uniform(size=(slots, LAYERS)), jnp.float32)

    def chunked(mask_logits: jax.Array, at_once: int) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        config = replace(CONFIG, slots_at_once=at_once)
        losses = pair_losses(mask_logits, segment_index, segment_plane, image, target, points, config)
        return jnp.sum(share * losses[0]), losses

    def single(mask_logits: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        rows = []
        for m in range(slots):
            plane, segment = segment_plane[image[m], target[m]], jnp.full(LAYERS, target[m])
            segments = sample_segment(segment_index[image[m]], jnp.full(LAYERS, plane), segment, points[m])
            logits = sample_masks(mask_logits[m], points[m])
            rows.append(weighted_losses(logits, segments, point_weights(logits, CONFIG)))
        cross_entropy, dice = (jnp.stack(loss) for loss in zip(*rows, strict=True))
        weighted = 3.0 * cross_entropy + 2.0 * dice
        return jnp.sum(share * weighted), (weighted, cross_entropy, dice)

    (_, theirs), expected = jax.jit(jax.value_and_grad(single, has_aux=True))(mask_logits)
    assert np.abs(expected).max() > 0
    for at_once in (SLOTS_ON_CPU, SLOTS_ON_GPU):
        (_, ours), slope = jax.jit(jax.value_and_grad(partial(chunked, at_once=at_once), has_aux=True))(mask_logits)
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-5)
        np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-6)
