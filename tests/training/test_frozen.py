"""Frozen parameters: no update and no state for them, and no dropout inside a frozen part."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_step import CONFIG

from oneformer_jax.models import oneformer
from oneformer_jax.training.optimizer import (
    Names,
    OptimizerConfig,
    in_evaluation_mode,
    make_optimizer,
    parameter_groups,
    parameter_names,
    without_gradient,
)


@pytest.fixture(scope="module")
def shapes() -> dict:
    return jax.eval_shape(lambda: oneformer.init(CONFIG, jax.random.key(0)))


def below(shapes: dict, *prefixes: str) -> Names:
    return Names(name for name in jax.tree.leaves(parameter_names(shapes)) if name.startswith(prefixes))


@pytest.mark.slow
@pytest.mark.tao(42)
def test_dropout_is_off_where_everything_is_frozen(shapes: dict) -> None:
    def mode(*prefixes: str):
        return in_evaluation_mode(CONFIG, shapes, below(shapes, *prefixes))

    assert mode("predictor/class_embed", "backbone/patch_") == CONFIG
    assert mode("backbone/").backbone.frozen_stages == (0, 1, 2, 3)
    assert mode("backbone/stage1_", "backbone/stage2_").backbone.frozen_stages == (1, 2)
    assert mode("pixel_decoder/").pixel_decoder.dropout == 0
    assert mode("pixel_decoder/").transformer.dropout > 0
    assert mode("predictor/class_transformer/").transformer.dropout == 0


@pytest.mark.slow
def test_frozen_parameters_have_no_optimizer_state_no_update_and_no_gradient(shapes: dict) -> None:
    frozen = below(shapes, "backbone/", "predictor/class_transformer/")
    optimizer = make_optimizer(OptimizerConfig(clip_value=0.5), optax.constant_schedule(1e-3), frozen=frozen)
    state = jax.eval_shape(optimizer.init, shapes)
    moments = set(jax.tree.leaves(parameter_names(optax.tree.get(state, "mu"))))
    assert moments == below(shapes, "") - frozen

    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    updates, _ = jax.jit(optimizer.update)(params, jax.jit(optimizer.init)(params), params)
    for name, update in zip(jax.tree.leaves(parameter_names(shapes)), jax.tree.leaves(updates), strict=True):
        assert np.any(update) == (name not in frozen), name
    total = jax.grad(lambda tree: sum(map(jnp.sum, jax.tree.leaves(without_gradient(tree, frozen)))))
    gradients = jax.jit(total)(params)
    for name, gradient in zip(jax.tree.leaves(parameter_names(shapes)), jax.tree.leaves(gradients), strict=True):
        assert np.any(gradient) == (name not in frozen), name


@pytest.mark.slow
@pytest.mark.tao(42)
def test_frozen_stages_run_as_in_evaluation() -> None:
    backbone = dataclasses.replace(CONFIG.backbone, drop_path_rate=0.9, drop_rate=0.5)
    images, rngs = jnp.ones((4, 32, 32, 3)), {"dropout": jax.random.key(1)}
    params = backbone.build().init(jax.random.key(0), images, deterministic=True)
    evaluated = backbone.build().apply(params, images, deterministic=True)
    module = dataclasses.replace(backbone, frozen_stages=(0, 1)).build()
    maps = module.apply(params, images, deterministic=False, rngs=rngs)
    same = [bool(np.array_equal(maps[name], evaluated[name])) for name in ("res2", "res3", "res4", "res5")]
    assert same == [True, True, False, False]


@pytest.mark.tao(4)
def test_groups_tell_rate_and_decay_of_every_part(shapes: dict) -> None:
    config = OptimizerConfig(weight_decay=0.1, backbone_multiplier=0.25, query_multiplier=2.0)
    frozen = below(shapes, "text_encoder/")
    groups = parameter_groups(shapes, config, frozen)
    assert {(g.part, g.lr, g.weight_decay) for g in groups if g.part in ("backbone", "predictor", "text_encoder")} == {
        ("backbone", 0.25, 0.0),
        ("backbone", 0.25, 0.1),
        ("predictor", 1.0, 0.0),
        ("predictor", 1.0, 0.1),
        ("predictor", 2.0, 0.0),
        ("text_encoder", 0.0, 0.0),
    }
    assert sum(g.parameters for g in groups) == sum(leaf.size for leaf in jax.tree.leaves(shapes))
    # The optimizer does what the groups say: AdamW's first update is the rate times the sign of the gradient.
    optimizer = make_optimizer(OptimizerConfig(0.0, query_multiplier=2.0), optax.constant_schedule(1.0), frozen=frozen)
    ones = {"predictor": {"query_embed": jnp.ones(3), "level_embed": jnp.ones(3)}}
    updates, _ = optimizer.update(ones, optimizer.init(ones), ones)
    np.testing.assert_allclose(updates["predictor"]["query_embed"], -2.0, rtol=1e-5)
    np.testing.assert_allclose(updates["predictor"]["level_embed"], -1.0, rtol=1e-5)
