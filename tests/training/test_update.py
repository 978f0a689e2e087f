"""The update as a GPU computes it, against the one of a CPU, which the other tests run."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_step import step_of

from oneformer_jax.training.step import TrainState, TrainStep

pytestmark = pytest.mark.slow
SHAPES = {"backbone": {"kernel": (3, 4), "norm": {"scale": (4,)}}, "predictor": {"query_embed": (5, 4)}}
NORM = jnp.asarray(3.0, jnp.float32)


class Case(NamedTuple):
    step: TrainStep
    state: TrainState
    gradients: dict


@pytest.fixture(scope="module")
def case() -> Case:
    """A training that keeps an average, of three parameters."""
    rng = np.random.default_rng(0)
    params, gradients = (
        jax.tree.map(lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32), SHAPES, is_leaf=is_shape)
        for _ in range(2)
    )
    step, optimizer = step_of(1)
    average = jax.tree.map(jnp.ones_like, params)
    return Case(step, TrainState(jnp.asarray(3, jnp.int32), params, optimizer.init(params), None, average), gradients)


def is_shape(node: object) -> bool:
    return isinstance(node, tuple)


def test_a_finite_update_is_that_of_a_cpu(case: Case) -> None:
    step, state, gradients = case
    expected = jax.jit(step._stepped_or_left)(True, state, gradients, NORM)
    found = jax.jit(step._stepped_where_finite)(True, state, gradients, NORM)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)
    assert float(optax.tree.norm(jax.tree.map(jnp.subtract, found.params, state.params))) > 0


def test_another_changes_nothing(case: Case) -> None:
    step, state, gradients = case
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, gradients)
    found = jax.jit(step._stepped_where_finite)(False, state, broken, NORM * jnp.nan)
    jax.tree.map(np.testing.assert_array_equal, found, state)


def test_a_gpu_runs_no_conditional(case: Case) -> None:
    step, state, gradients = case
    on_cpu, on_gpu = (
        jax.export.export(jax.jit(step.updated), platforms=[platform])(state, gradients, NORM).mlir_module()
        for platform in ("cpu", "cuda")
    )
    # The others choose by platform, and are gone before the program runs.
    assert on_cpu.count("stablehlo.case") == on_gpu.count("stablehlo.case") + 1


def test_the_norm_of_the_gradients_is_computed_once(case: Case) -> None:
    """For the record, for the check that they are finite, and for their clipping."""
    step, state, gradients = case
    program = jax.jit(step.updated).lower(state, gradients, NORM).as_text()
    assert program.count("stablehlo.reduce(") == len(jax.tree.leaves(gradients))
