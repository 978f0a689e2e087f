"""Costs, assignments, losses and gradients of the original OneFormer, at its own random points."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from converters.shi_labs import from_shi_labs
from oneformer_jax.data.batch import Batch
from oneformer_jax.losses.assignment import Pairs, assign, pair_slots
from oneformer_jax.losses.config import CriterionConfig
from oneformer_jax.losses.criterion import criterion_at_points
from oneformer_jax.losses.mask_losses import pair_mask_logits, point_weights
from oneformer_jax.losses.matching import costs_at_points
from oneformer_jax.losses.points import sample_masks
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import (
    OneFormerConfig,
    PixelDecoderConfig,
    SwinConfig,
    TextEncoderConfig,
    TransformerConfig,
)
from oneformer_jax.models.predictions import LayerPredictions

Golden = dict[str, np.ndarray]
LAYERS = ("aux0", "aux1", "aux2", "final")
CRITERION = CriterionConfig(num_points=96)


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    with np.load(shared / "reference" / "golden" / "shi_tiny_dev.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def config(golden: Golden) -> OneFormerConfig:
    c = json.loads(str(golden["meta_json"]))["config"]
    return OneFormerConfig(
        num_classes=c["classes"],
        backbone=SwinConfig(
            embed_dim=c["embed"],
            depths=tuple(c["depths"]),
            num_heads=tuple(c["heads"]),
            window_size=c["window"],
            drop_path_rate=0.0,
        ),
        pixel_decoder=PixelDecoderConfig(c["hidden"], c["hidden"], c["enc_layers"], c["nheads"], dropout=0.0),
        transformer=TransformerConfig(
            hidden_dim=c["hidden"],
            num_queries=c["queries"],
            num_heads=c["nheads"],
            dim_feedforward=c["ffn"],
            dec_layers=c["dec_layers"],
            class_dec_layers=c["class_dec"],
            dropout=0.0,
        ),
        text_encoder=TextEncoderConfig(
            width=c["text_width"],
            num_layers=c["text_layers"],
            vocab_size=c["vocab"],
            context_length=c["ctx"],
            n_ctx=c["n_ctx"],
            proj_num_layers=c["proj_layers"],
        ),
    )


def to_params(arrays: Golden, config: OneFormerConfig) -> dict[str, Any]:
    return from_shi_labs(arrays, config)[0]


@pytest.fixture(scope="module")
def params(golden: Golden, config: OneFormerConfig) -> dict[str, Any]:
    state = {name.removeprefix("sd/"): array for name, array in golden.items() if name.startswith("sd/")}
    state.setdefault("criterion.logit_scale", np.log(np.float32(1 / 0.07)))
    return to_params(state, config)


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


def predict(
    params: dict[str, Any], golden: Golden, config: OneFormerConfig
) -> tuple[LayerPredictions, jax.Array, jax.Array]:
    images = jnp.asarray(golden["in/image"].transpose(0, 2, 3, 1))
    features = oneformer.encode(params, images, config=config)
    outputs = oneformer.decode(params, features, jnp.asarray(golden["in/task_tokens"]), config=config)
    tokens = jnp.asarray(golden["in/text_tokens"].reshape(12, 77))
    text_queries = oneformer.encode_text(params, tokens, jnp.arange(12).reshape(2, 6), config=config)
    return outputs, text_queries, params["logit_scale"]


@pytest.fixture(scope="module")
def predictions(
    params: dict[str, Any], golden: Golden, config: OneFormerConfig
) -> tuple[LayerPredictions, jax.Array, jax.Array]:
    return jax.jit(partial(predict, golden=golden, config=config))(params)


@pytest.fixture(scope="module")
def costs(predictions: tuple[LayerPredictions, jax.Array, jax.Array], batch: Batch, golden: Golden) -> np.ndarray:
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
    points = np.full((*pairs.query.shape, size, 2), 0.5, np.float32)
    for i, layer in enumerate(LAYERS):
        drawn = np.concatenate([golden[f"loss/{layer}/rand_oversampled"], golden[f"loss/{layer}/rand_extra"]], axis=1)
        for group, slot, row in slots(pairs, golden, layer):
            points[i, group, slot] = drawn[row]
    return jnp.asarray(points)


def test_costs_and_assignments(costs: np.ndarray, golden: Golden) -> None:
    query = np.asarray(paired(costs, 1).query)
    for i, layer in enumerate(LAYERS):
        for b, start in ((0, 0), (1, 8)):
            expected = golden[f"loss/{layer}/match_cost_{b}"]
            np.testing.assert_allclose(costs[i, b, :, : expected.shape[1]], expected, rtol=1e-4, atol=1e-4)
            target = golden[f"loss/{layer}/match_target_{b}"]
            np.testing.assert_array_equal(query[i, 0, start + target], golden[f"loss/{layer}/match_query_{b}"])


def test_chosen_points(
    predictions: tuple[LayerPredictions, jax.Array, jax.Array], costs: np.ndarray, golden: Golden
) -> None:
    pairs = paired(costs, 1)
    points = golden_points(pairs, golden)[:, 0]
    outputs = predictions[0]
    masks = pair_mask_logits(
        outputs.mask_embeddings, outputs.mask_features, jnp.asarray(pairs.query[:, 0]), jnp.asarray(pairs.image[0])
    )
    for i, layer in enumerate(LAYERS):
        weights = np.asarray(point_weights(sample_masks(masks[i], points[i]), CRITERION))
        for _, slot, row in slots(pairs, golden, layer):
            assert set(np.unique(weights[slot])) == {0.0, 1.0}
            chosen = {tuple(point) for point in np.asarray(points[i, slot])[weights[slot] == 1]}
            assert chosen == {tuple(point) for point in golden[f"loss/{layer}/point_coords"][row]}


@pytest.mark.parametrize("num_groups", [1, 2])
def test_losses_and_gradients(
    num_groups: int,
    params: dict[str, Any],
    predictions: tuple[LayerPredictions, jax.Array, jax.Array],
    costs: np.ndarray,
    batch: Batch,
    golden: Golden,
    config: OneFormerConfig,
) -> None:
    pairs = paired(costs, num_groups)
    points = golden_points(pairs, golden)
    device_batch, device_pairs = jax.tree.map(jnp.asarray, (batch, pairs))

    @jax.jit
    def gradients(params: dict[str, Any]) -> Any:
        """As a training step does it: the criterion's cotangents enter the pullback of the forward pass."""
        (outputs, text_queries, logit_scale), pullback = jax.vjp(partial(predict, golden=golden, config=config), params)

        def objective(outputs: LayerPredictions, text_queries: jax.Array, logit_scale: jax.Array) -> Any:
            return criterion_at_points(
                outputs, device_batch, device_pairs, text_queries, logit_scale, points, CRITERION
            )

        (total, losses), cotangents = jax.value_and_grad(objective, argnums=(0, 1, 2), has_aux=True)(
            outputs, text_queries, logit_scale
        )
        return total, losses, pullback(cotangents)[0]

    total, losses, grads = gradients(params)
    np.testing.assert_allclose(total, golden["loss/total_weighted"], rtol=1e-4)
    np.testing.assert_allclose(losses["loss_contrastive"], golden["loss/raw/loss_contrastive"], rtol=1e-4)
    for name in ("loss_ce", "loss_mask", "loss_dice"):
        expected = [golden[f"loss/raw/{name}{suffix}"] for suffix in ("_0", "_1", "_2", "")]
        np.testing.assert_allclose(losses[name], expected, rtol=1e-4)

    # The converter lays out the original's gradients, and constants that are their norms, as it does parameters.
    names = [str(name) for name in golden["grad_names"]]
    shape = {name: golden[f"sd/{name}"].shape if f"sd/{name}" in golden else () for name in names}
    known = {name: golden.get(f"grad/{name}", np.full(shape[name], np.nan, np.float32)) for name in names}
    norms = dict(zip(names, golden["grad_norms"], strict=True))
    expected_grads = to_params(known, config)
    expected_norms = to_params({name: np.full(shape[name], norms[name], np.float32) for name in names}, config)
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
    assert compared == sum(name.startswith("grad/") for name in golden)
