"""Costs, assignments, losses and gradients of the original OneFormer, at its own random points."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from carried import from_original
from goldens import Golden, channels_last, load_golden

from oneformer_jax.data.batch import Batch
from oneformer_jax.losses.criterion import OneFormerObjective, criterion_at_points
from oneformer_jax.losses.mask_losses import pair_mask_logits, point_weights
from oneformer_jax.losses.matching import CriterionConfig, Pairs, assign, costs_at_points, pair_slots
from oneformer_jax.losses.points import sample_masks
from oneformer_jax.models import oneformer
from oneformer_jax.models.predictions import TrainingOutputs

pytestmark = [pytest.mark.slow, pytest.mark.again]

LAYERS = ("aux0", "aux1", "aux2", "final")
CRITERION = CriterionConfig(num_points=96)


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    return load_golden(shared / "reference" / "golden" / "shi_tiny_dev.npz")


@pytest.fixture(scope="module")
def params(golden: Golden) -> dict[str, Any]:
    scale = {"criterion.logit_scale": np.log(np.float32(1 / golden.meta["contrast_temperature"]))}
    return from_original(scale | golden.state, golden.config)[0]


@pytest.fixture(scope="module")
def batch(golden: Golden) -> Batch:
    """The golden targets, whose masks overlap: the first plane that is free takes each of them."""
    height, width = golden["in/image"].shape[2:]
    index = np.full((2, 5, height, width), -1, np.int16)
    segment_class, plane = np.full((2, 8), -1, np.int32), np.zeros((2, 8), np.int32)
    for b in range(2):
        for t, mask in enumerate(golden[f"in/tgt_masks_{b}"].astype(bool)):
            plane[b, t] = next(r for r in range(5) if (index[b, r][mask] == -1).all())
            index[b, plane[b, t]][mask] = t
            segment_class[b, t] = golden[f"in/tgt_labels_{b}"][t]
    assert plane.max() > 0
    index = index[:, : plane.max() + 1]
    empty = np.zeros((2, height, width, 3), np.uint8)
    return Batch(empty, index, segment_class, plane, np.zeros(2, np.int32), np.zeros((2, 6), np.int32), np.arange(2))


def predict(params: dict[str, Any], golden: Golden) -> TrainingOutputs:
    config = golden.config
    features = oneformer.encode(params, jnp.asarray(channels_last(golden["in/image"])), config=config)
    outputs = oneformer.decode(params, features, jnp.asarray(golden["in/task_tokens"]), config=config)
    table, prompts = jnp.asarray(golden.prompt_table), jnp.asarray(golden.prompts)
    text_queries = oneformer.encode_text(params, table, prompts, config=config)
    return TrainingOutputs(outputs, text_queries, params["logit_scale"])


@pytest.fixture(scope="module")
def predictions(params: dict[str, Any], golden: Golden) -> TrainingOutputs:
    return jax.jit(partial(predict, golden=golden))(params)


@pytest.fixture(scope="module")
def costs(predictions: TrainingOutputs, batch: Batch, golden: Golden) -> np.ndarray:
    points = np.stack([[golden[f"loss/{layer}/match_points_{b}"][0] for b in range(2)] for layer in LAYERS])
    return np.asarray(costs_at_points(predictions[0], jax.tree.map(jnp.asarray, batch), jnp.asarray(points), CRITERION))


def paired(costs: np.ndarray, num_groups: int) -> Pairs:
    num_segments = np.array([3, 5])
    return assign(costs, num_segments, num_groups=num_groups, slots=pair_slots(num_segments, num_groups))


def slots(pairs: Pairs, golden: Golden, layer: str) -> list[tuple[int, int, int]]:
    """Group and slot of each pair of the golden arrays, and its place in them."""
    num_groups = pairs.image.shape[0]
    found, row = [], 0
    for b in range(2):
        group, local = divmod(b, 2 // num_groups)
        for target in golden[f"loss/{layer}/match_target_{b}"]:
            here = (pairs.image[group] == local) & (pairs.target[group] == target) & (pairs.query[0, group] >= 0)
            found.append((group, int(np.flatnonzero(here).item()), row))
            row += 1
    return found


def golden_points(pairs: Pairs, golden: Golden) -> jax.Array:
    size = golden["loss/final/rand_oversampled"].shape[1] + golden["loss/final/rand_extra"].shape[1]
    points = np.full((*pairs.image.shape, len(LAYERS), size, 2), 0.5, np.float32)
    for i, layer in enumerate(LAYERS):
        drawn = np.concatenate([golden[f"loss/{layer}/rand_oversampled"], golden[f"loss/{layer}/rand_extra"]], axis=1)
        for group, slot, row in slots(pairs, golden, layer):
            points[group, slot, i] = drawn[row]
    return jnp.asarray(points)


def test_costs_and_assignments(costs: np.ndarray, golden: Golden) -> None:
    query = np.asarray(paired(costs, num_groups=1).query)
    for i, layer in enumerate(LAYERS):
        for b, start in ((0, 0), (1, 8)):
            expected = golden[f"loss/{layer}/match_cost_{b}"]
            np.testing.assert_allclose(costs[i, b, :, : expected.shape[1]], expected, rtol=1e-4, atol=1e-4)
            target = golden[f"loss/{layer}/match_target_{b}"]
            np.testing.assert_array_equal(query[i, 0, start + target], golden[f"loss/{layer}/match_query_{b}"])


def test_chosen_points(predictions: TrainingOutputs, costs: np.ndarray, golden: Golden) -> None:
    pairs = paired(costs, num_groups=1)
    points = golden_points(pairs, golden)[0]
    outputs = predictions[0]
    of_pairs = jnp.asarray(pairs.query[:, 0]), jnp.asarray(pairs.image[0])
    masks = pair_mask_logits(outputs.mask_embeddings, outputs.mask_features, *of_pairs, CRITERION)
    for i, layer in enumerate(LAYERS):
        weights = np.asarray(point_weights(sample_masks(masks[:, i], points[:, i]), CRITERION))
        for _, slot, row in slots(pairs, golden, layer):
            assert set(np.unique(weights[slot])) == {0.0, 1.0}
            chosen = {tuple(point) for point in np.asarray(points[slot, i])[weights[slot] == 1]}
            assert chosen == {tuple(point) for point in golden[f"loss/{layer}/point_coords"][row]}


def test_losses_and_gradients(
    params: dict[str, Any],
    costs: np.ndarray,
    batch: Batch,
    golden: Golden,
) -> None:
    pairs = paired(costs, num_groups=2)
    points = golden_points(pairs, golden)
    device_batch, device_pairs = jax.tree.map(jnp.asarray, (batch, pairs))
    tables, num_queries = [device_batch.segment_class], golden.config.transformer.num_queries
    over = OneFormerObjective(CRITERION).normalisers(tables, num_queries)

    @jax.jit
    def gradients(params: dict[str, Any]) -> Any:
        """As a training step does it: the criterion's cotangents enter the pullback of the forward pass."""
        outputs, pullback = jax.vjp(partial(predict, golden=golden), params)

        def objective(outputs: TrainingOutputs) -> Any:
            return criterion_at_points(outputs, device_batch, device_pairs, over, points, CRITERION)

        (total, losses), cotangents = jax.value_and_grad(objective, has_aux=True)(outputs)
        return total, losses, pullback(cotangents)[0]

    total, losses, grads = gradients(params)
    np.testing.assert_allclose(total, golden["loss/total_weighted"], rtol=1e-4)
    np.testing.assert_allclose(losses["loss_contrastive"], golden["loss/raw/loss_contrastive"], rtol=1e-4)
    for name in ("loss_ce", "loss_mask", "loss_dice"):
        expected = [golden[f"loss/raw/{name}{suffix}"] for suffix in ("_0", "_1", "_2", "")]
        np.testing.assert_allclose(losses[name], expected, rtol=1e-4)

    # The converter lays out the original's gradients, and constants that are their norms, as it does parameters.
    names = [str(name) for name in golden["grad_names"]]
    shape = {name: golden.state[name].shape if name in golden.state else () for name in names}
    known = {name: golden.arrays.get(f"grad/{name}", np.full(shape[name], np.nan, np.float32)) for name in names}
    norms = dict(zip(names, golden["grad_norms"], strict=True))
    expected_grads = from_original(known, golden.config)[0]
    constants = {name: np.full(shape[name], norms[name], np.float32) for name in names}
    expected_norms = from_original(constants, golden.config)[0]
    compared = 0
    for (path, gradient), expected, norm in zip(
        jax.tree.leaves_with_path(grads), jax.tree.leaves(expected_grads), jax.tree.leaves(expected_norms), strict=True
    ):
        place = jax.tree_util.keystr(path)
        np.testing.assert_allclose(np.linalg.norm(gradient), np.ravel(norm)[0], rtol=1e-3, atol=1e-4, err_msg=place)
        if not np.isnan(expected).any():
            compared += 1
            tolerance = 2e-4 * np.abs(expected).max()
            np.testing.assert_allclose(gradient, expected, rtol=0, atol=tolerance, err_msg=place)
    assert compared == sum(name.startswith("grad/") for name in golden.arrays)
