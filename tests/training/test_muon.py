"""Muon against Optax's, singular value by singular value, and over the parameters of the model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models.tiny import TINY

from oneformer_jax.models import oneformer
from oneformer_jax.training.muon import MOMENTUM, is_matrix, orthogonalised, scale_by_muon
from oneformer_jax.training.optimizer import OptimizerConfig, make_optimizer, parameter_names

SHAPES = {"tall": (48, 16), "wide": (16, 48), "wide_too": (16, 48), "square": (32, 32)}


def matrices(seed: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in SHAPES.items()}


@pytest.mark.slow
def test_the_first_update_is_that_of_optax() -> None:
    gradients = matrices(0)
    theirs = optax.contrib.muon(1.0, consistent_rms=0.4)
    expected, _ = theirs.update(gradients, theirs.init(gradients), gradients)
    ours = scale_by_muon(0.4)
    found, _ = ours.update(gradients, ours.init(gradients))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, -b, rtol=2e-4, atol=2e-5), found, expected)


@pytest.mark.parametrize("name", SHAPES)
def test_singular_vectors_stay_and_their_values_become_one_size(name: str) -> None:
    gradient = matrices(1)[name]
    u, _, v = np.linalg.svd(gradient, full_matrices=False)
    new = np.asarray(orthogonalised({name: gradient}, rms=0.5)[name])
    values = u.T @ new @ v.T / (0.5 * max(gradient.shape) ** 0.5)
    assert np.all((np.diag(values) > 0.65) & (np.diag(values) < 1.25))
    np.testing.assert_allclose(values, np.diag(np.diag(values)), atol=1e-4)


def test_what_is_orthogonalised_is_nesterov_momentum() -> None:
    ours, steps = scale_by_muon(1.0), [matrices(seed) for seed in range(4)]
    state, momentum = ours.init(steps[0]), jax.tree.map(jnp.zeros_like, steps[0])
    for gradients in steps:
        found, state = ours.update(gradients, state)
        momentum = jax.tree.map(lambda m, g: MOMENTUM * m + g, momentum, gradients)
        ahead = jax.tree.map(lambda m, g: MOMENTUM * m + g, momentum, gradients)
    expected = orthogonalised(ahead, 1.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def test_matrices_are_kernels_whose_rows_and_columns_are_features() -> None:
    shapes = oneformer.shapes(TINY)
    names = jax.tree.leaves(parameter_names(shapes))
    found = {name for name, leaf in zip(names, jax.tree.leaves(shapes), strict=True) if is_matrix(name, leaf.shape)}
    others = {name for name in names if name.endswith("/kernel")} - found
    parts = {name.split("/")[-2] for name in others if not name.startswith("task_mlp/")}
    assert parts == {"class_embed", "sampling_offsets"}
    assert {"predictor/mask_embed/layer_0/kernel", "backbone/patch_embed/kernel"} < found
    assert is_matrix("backbone/depthwise/kernel", (7, 7, 1, 32))  # the places of its windows, and channels


def test_a_convolution_is_the_matrix_of_its_windows() -> None:
    gradient = jnp.asarray(np.random.default_rng(2).normal(size=(3, 3, 4, 8)), jnp.float32)
    flat = orthogonalised({"dense": gradient.reshape(36, 8)}, rms=0.5)["dense"]
    found = orthogonalised({"conv": gradient, "dense": gradient.reshape(36, 8).T}, rms=0.5)
    np.testing.assert_allclose(found["conv"], flat.reshape(gradient.shape), atol=1e-6)
    np.testing.assert_allclose(found["dense"], flat.T, atol=1e-6)


@pytest.mark.slow
def test_all_else_is_left_to_adamw_and_groups_hold_for_both() -> None:
    rng = np.random.default_rng(0)
    params = {
        "backbone": {"linear1": {"kernel": rng.normal(size=(8, 16)), "bias": rng.normal(size=16)}},
        "predictor": {"class_embed": {"kernel": rng.normal(size=(8, 3))}},
    }
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    gradients = jax.tree.map(lambda leaf: leaf + 1, params)
    updates = {}
    for kind in ("AdamW", "Muon"):
        config = OptimizerConfig(type=kind, muon_rms=0.5, backbone_multiplier=0.25, weight_decay=0.0)
        optimizer = make_optimizer(config, optax.constant_schedule(0.1))
        updates[kind], _ = optimizer.update(gradients, optimizer.init(params), params)
    adam, muon = updates["AdamW"], updates["Muon"]
    for a, b in ((adam["predictor"], muon["predictor"]), (adam["backbone"]["linear1"]["bias"],) * 2):
        jax.tree.map(np.testing.assert_array_equal, a, b)
    kernel = np.asarray(muon["backbone"]["linear1"]["kernel"])
    assert np.sqrt(np.mean(kernel**2)) == pytest.approx(0.1 * 0.25 * 0.5, rel=0.25)
