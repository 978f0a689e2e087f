"""Losses worked out by hand, and what must not change them."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import tier

from oneformer_jax.data.batch import Batch
from oneformer_jax.losses.criterion import OneFormerObjective, class_loss, contrastive_loss
from oneformer_jax.losses.mask_losses import weighted_losses
from oneformer_jax.losses.matching import CriterionConfig, Pairs, assign, costs_at_points, matching_costs, pair_slots
from oneformer_jax.models.predictions import LayerPredictions, TrainingOutputs

CONFIG = CriterionConfig(num_points=40)
SEGMENTS = np.array([2, 0, 3, 1])


@pytest.fixture(scope="module")
def outputs() -> LayerPredictions:
    """3 layers, 4 images, 5 queries, 6 classes."""
    rng = np.random.default_rng(0)
    shapes = [(3, 4, 5, 7), (3, 4, 5, 8), (4, 6, 6, 8), (4, 5, 8)]
    return LayerPredictions(*(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes))


@pytest.fixture(scope="module")
def batch() -> Batch:
    """The second image has no segment."""
    rng = np.random.default_rng(1)
    segment_class = np.where(np.arange(4)[None] < SEGMENTS[:, None], rng.integers(0, 6, (4, 4)), -1)
    index = np.stack([rng.integers(-1, n, (1, 24, 24)) if n else np.full((1, 24, 24), -1) for n in SEGMENTS])
    arrays = [np.zeros((4, 24, 24, 3), np.uint8), index, segment_class, np.zeros((4, 4), int), np.zeros(4, int)]
    return Batch(*map(jnp.asarray, [*arrays, np.zeros((4, 2), int), np.array([70, 71, 72, 73])]))


def matched(outputs: LayerPredictions, batch: Batch, num_groups: int = 1, slots: int = 0) -> Pairs:
    costs = np.asarray(matching_costs(outputs, batch, jax.random.key(0), CONFIG))
    assert np.isfinite(costs).all()
    slots = slots or pair_slots(SEGMENTS, num_groups)
    return jax.tree.map(jnp.asarray, assign(costs, SEGMENTS, num_groups=num_groups, slots=slots))


def total_and_gradients(
    outputs: LayerPredictions, batch: Batch, pairs: Pairs, config: CriterionConfig = CONFIG
) -> tuple[jax.Array, dict[str, jax.Array], LayerPredictions]:
    objective = OneFormerObjective(config)
    over = objective.normalisers([batch.segment_class], outputs.class_logits.shape[2])

    @jax.jit
    def run(outputs: LayerPredictions) -> tuple[tuple[jax.Array, dict[str, jax.Array]], LayerPredictions]:
        def loss(outputs: LayerPredictions) -> tuple[jax.Array, dict[str, jax.Array]]:
            text_queries = jnp.ones_like(outputs.object_queries)
            whole = TrainingOutputs(outputs, text_queries, jnp.float32(1))
            return objective.loss(whole, batch, pairs, over, jax.random.key(0))

        return jax.value_and_grad(loss, has_aux=True)(outputs)

    (total, losses), gradients = run(outputs)
    return total, losses, gradients


def test_matching_cost_of_a_certain_mask() -> None:
    """One query that is sure of its half of the image: a segment equal to that half costs nothing but its class."""
    half = np.zeros((1, 8, 8, 1), np.float32)
    half[:, :, :4], half[:, :, 4:] = 50, -50
    embedding, logits = jnp.array([[[[1.0], [-1.0]]]]), jnp.log(jnp.array([[[[0.25, 0.75], [0.5, 0.5]]]]))
    outputs = LayerPredictions(logits, embedding, jnp.asarray(half), jnp.zeros((1, 2, 1)))
    index = np.full((1, 1, 8, 8), -1)
    index[..., :4] = 0
    batch = Batch(*map(jnp.asarray, [np.zeros((1, 8, 8, 3), np.uint8), index, [[0, -1]], [[0, 0]], [0], [[0]], [0]]))
    points = jnp.asarray([[[[0.2, 0.5], [0.3, 0.7], [0.8, 0.5], [0.7, 0.2]]]])
    costs = np.asarray(costs_at_points(outputs, batch, points, CONFIG))[0, 0, :, 0]
    # The opposite query is wrong by 50 at every point; its dice overlap is 0: 1 - 1 / (2 + 2 + 1).
    np.testing.assert_allclose(costs, [-2 * 0.25, -2 * 0.5 + 5 * 50 + 5 * (1 - 1 / 5)], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_costs_of_several_layers_at_once(outputs: LayerPredictions, batch: Batch) -> None:
    one, two = (
        matching_costs(outputs, batch, jax.random.key(0), replace(CONFIG, layers_at_once=number)) for number in (1, 2)
    )
    np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)


def test_cross_entropy_and_dice_of_undecided_points() -> None:
    """Logits of 0: log 2 a point, and probabilities of one half at the four weighted points, two inside."""
    logits, segments = jnp.zeros((1, 5)), jnp.array([[1.0, 1.0, 0.0, 0.0, 1.0]])
    cross_entropy, dice = weighted_losses(logits, segments, jnp.array([[1.0, 1.0, 1.0, 1.0, 0.0]]))
    np.testing.assert_allclose(cross_entropy, math.log(2), rtol=1e-6)
    np.testing.assert_allclose(dice, 1 - (2 * 1 + 1) / (2 + 2 + 1), rtol=1e-6)


def test_class_loss_weighs_no_object_less() -> None:
    probabilities = jnp.array([[[[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]]])
    loss = class_loss(jnp.log(probabilities), jnp.array([[[0, 2]]]), 0.1, jnp.float32(1.1))
    np.testing.assert_allclose(loss, -(math.log(0.5) + 0.1 * math.log(0.8)) / 1.1, rtol=1e-6)


def test_normalisers_count_the_segments_and_queries_of_all_batches(batch: Batch) -> None:
    empty = batch._replace(segment_class=jnp.full_like(batch.segment_class, -1))
    objective = OneFormerObjective(CriterionConfig(no_object_weight=0.1))
    over = objective.normalisers([batch.segment_class, empty.segment_class], num_queries=5)
    np.testing.assert_allclose(over, [6, 6 + 0.1 * (40 - 6), 2], rtol=1e-6)
    assert objective.normalisers([empty.segment_class], num_queries=5).masks == 1


@pytest.mark.slow
@pytest.mark.tao(41)
def test_contrastive_loss() -> None:
    """Orthogonal pairs: each row has one logit of the scale and zeros; long and zero vectors are harmless."""
    queries = jnp.asarray(np.eye(3, 4, dtype=np.float32)[:, None])
    scale = jnp.float32(math.log(5))
    expected = 2 * (math.log(math.exp(5) + 2) - 5)
    np.testing.assert_allclose(contrastive_loss(100 * queries, queries, scale), expected, rtol=1e-5)
    # The scale stops at 100 and then learns nothing.
    loss, slope = jax.value_and_grad(lambda s: contrastive_loss(queries, -queries, s))(jnp.float32(9))
    np.testing.assert_allclose(loss, 2 * (math.log(2 + math.exp(-100)) + 100), rtol=1e-5)
    assert slope == 0
    assert contrastive_loss(queries[:1], queries[1:2], scale) == 0
    assert np.isfinite(jax.grad(contrastive_loss)(jnp.zeros_like(queries), queries, scale)).all()


@pytest.mark.slow
@pytest.mark.again
@pytest.mark.optimised  # the last bit decides which points are the uncertain ones
def test_padding_and_groups_change_nothing(outputs: LayerPredictions, batch: Batch) -> None:
    total, losses, gradients = total_and_gradients(outputs, batch, matched(outputs, batch))
    assert np.isfinite(total)
    others = [(matched(outputs, batch, slots=64, num_groups=2), replace(CONFIG, blocks_apart=True))]
    if tier() == "prove":
        others += [(matched(outputs, batch, slots=64), CONFIG), (matched(outputs, batch, 4), CONFIG)]
    for pairs, config in others:
        other_total, other_losses, other_gradients = total_and_gradients(outputs, batch, pairs, config)
        np.testing.assert_allclose(other_total, total, rtol=1e-6)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), other_losses, losses)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), other_gradients, gradients)


@pytest.mark.slow
def test_a_batch_without_segments(outputs: LayerPredictions, batch: Batch) -> None:
    empty = batch._replace(
        segment_index=jnp.full_like(batch.segment_index, -1), segment_class=jnp.full_like(batch.segment_class, -1)
    )
    costs = np.asarray(matching_costs(outputs, empty, jax.random.key(0), CONFIG))
    pairs = assign(costs, np.zeros(4, int), num_groups=1, slots=32)
    total, losses, gradients = total_and_gradients(outputs, empty, jax.tree.map(jnp.asarray, pairs))
    assert np.isfinite(total)
    np.testing.assert_array_equal(losses["loss_mask"], 0)
    np.testing.assert_array_equal(losses["loss_dice"], 0)
    np.testing.assert_array_equal(gradients.mask_features, 0)


@pytest.mark.slow
def test_total_is_the_weighted_sum(outputs: LayerPredictions, batch: Batch) -> None:
    total, losses, _ = total_and_gradients(outputs, batch, matched(outputs, batch))
    weights = {"loss_ce": 2, "loss_mask": 5, "loss_dice": 5, "loss_contrastive": 0.5}
    np.testing.assert_allclose(total, sum(weights[k] * np.sum(v) for k, v in losses.items()), rtol=1e-6)


@pytest.mark.slow
def test_without_deep_supervision_only_the_last_layer_counts(outputs: LayerPredictions, batch: Batch) -> None:
    config = replace(CONFIG, deep_supervision=False)
    costs = np.asarray(matching_costs(outputs, batch, jax.random.key(0), config))
    pairs = jax.tree.map(jnp.asarray, assign(costs, SEGMENTS, num_groups=1, slots=32))
    _, losses, gradients = total_and_gradients(outputs, batch, pairs, config)
    assert losses["loss_ce"].shape == (1,)
    assert not np.any(gradients.class_logits[:-1])
    assert np.any(gradients.class_logits[-1])


@pytest.mark.slow
def test_random_points_follow_the_sample_not_its_place(outputs: LayerPredictions, batch: Batch) -> None:
    order = np.array([2, 0, 3, 1])
    moved = jax.tree.map(lambda x: x[order], batch)
    moved_outputs = LayerPredictions(
        outputs.class_logits[:, order],
        outputs.mask_embeddings[:, order],
        outputs.mask_features[order],
        outputs.object_queries[order],
    )
    key = jax.random.key(5)
    costs, moved_costs = (matching_costs(*x, key, CONFIG) for x in ((outputs, batch), (moved_outputs, moved)))
    np.testing.assert_allclose(moved_costs, costs[:, order], rtol=1e-5)
    pairs = jax.tree.map(jnp.asarray, assign(np.asarray(costs), SEGMENTS, num_groups=1, slots=32))
    moved_pairs = assign(np.asarray(moved_costs), SEGMENTS[order], num_groups=1, slots=32)
    total, *_ = total_and_gradients(outputs, batch, pairs)
    moved_total, *_ = total_and_gradients(moved_outputs, moved, jax.tree.map(jnp.asarray, moved_pairs))
    np.testing.assert_allclose(moved_total, total, rtol=1e-5)


@pytest.mark.slow
def test_half_precision_predictions_give_losses_in_float32(outputs: LayerPredictions, batch: Batch) -> None:
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), outputs)
    pairs = matched(outputs, batch)
    total, losses, gradients = total_and_gradients(half, batch, pairs)
    assert {x.dtype for x in (total, *losses.values())} == {jnp.dtype(jnp.float32)}
    assert {x.dtype for x in gradients} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(total, total_and_gradients(outputs, batch, pairs)[0], rtol=0.02)
