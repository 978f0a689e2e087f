"""The scale of the loss that float16 needs, and the average of the parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_step import batch_of, start, step_of

from oneformer_jax.training.moving_average import averaged
from oneformer_jax.training.precision import FIRST_SCALE, STEPS_BEFORE_GROWTH, LossScale, first_loss_scale
from oneformer_jax.training.step import TrainState


def test_the_scale_doubles_after_many_good_steps_and_halves_at_an_overflow() -> None:
    scale = first_loss_scale("16-mixed")
    assert scale is not None
    scale = scale._replace(good_steps=jnp.asarray(STEPS_BEFORE_GROWTH - 2, jnp.int32))
    values = []
    for finite in (True, True, True, False, False):
        scale = scale.after(jnp.asarray(finite))
        values.append((float(scale.value) / FIRST_SCALE, int(scale.good_steps)))
    assert values == [(1, STEPS_BEFORE_GROWTH - 1), (2, 0), (2, 1), (1, 0), (0.5, 0)]
    least = LossScale(jnp.ones(()), jnp.zeros((), jnp.int32))
    assert float(least.after(jnp.asarray(False)).value) == 1
    assert first_loss_scale("32") is first_loss_scale("bf16-mixed") is None


@pytest.mark.parametrize(("updates", "share"), [(0, 0.1), (90, 0.91), (10**6, 0.99)])
def test_the_average_forgets_the_start_soon_and_then_decays_as_told(updates: int, share: float) -> None:
    old, new = {"a": jnp.array([1.0, 2.0])}, {"a": jnp.array([3.0, -2.0])}
    found = averaged(old, new, jnp.asarray(updates, jnp.int32), 0.99)
    np.testing.assert_allclose(found["a"], share * old["a"] + (1 - share) * new["a"], rtol=1e-5)


@pytest.fixture(scope="module")
def state() -> TrainState:
    """At the start of a float16 training that keeps an average."""
    _, optimizer = step_of(1, precision="16-mixed")
    fresh = start(optimizer)
    average = jax.tree.map(jnp.copy, fresh.params)
    return fresh._replace(loss_scale=first_loss_scale("16-mixed"), average=average)


def test_a_float16_step_has_the_gradients_of_the_unscaled_loss(state: TrainState) -> None:
    """Those of the first step are in AdamW's first moment; the float32 step begins with the same dropout and points."""
    (half, _), (full, optimizer) = step_of(1, precision="16-mixed"), step_of(1)
    before = jax.device_get(state.params)
    fresh = jax.tree.map(jnp.copy, state)
    reference, expected = full(start(optimizer), batch_of(4))
    with jax.transfer_guard("disallow"):
        after, found = half(fresh, batch_of(4))
    assert float(found["skipped"]) == 0
    assert float(found["loss_scale"]) == FIRST_SCALE
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=2e-3)
    np.testing.assert_allclose(found["gradient_norm"], expected["gradient_norm"], rtol=5e-3)
    moments = [optax.tree.get(s.opt_state, "mu") for s in (after, reference)]
    difference = optax.tree.norm(jax.tree.map(jnp.subtract, *moments))
    assert float(difference) < 0.02 * float(optax.tree.norm(moments[1]))
    # The average moved by nine tenths of what the parameters did: of a decay of 0.5 the first update keeps a tenth.
    for was, now, mean in zip(*map(jax.tree.leaves, (before, after.params, after.average)), strict=True):
        np.testing.assert_allclose(mean, was + 0.9 * (now - was), rtol=1e-4, atol=1e-6)


def test_an_overflow_halves_the_scale_and_leaves_all_else(state: TrainState) -> None:
    """A scale beyond what float16 holds: the loss is finite, and a smaller scale will do."""
    step, _ = step_of(1, precision="16-mixed")
    huge = LossScale(jnp.asarray(2.0**100, jnp.float32), jnp.asarray(7, jnp.int32))
    fresh = jax.tree.map(jnp.copy, state)._replace(loss_scale=huge)
    kept = jax.device_get((fresh.params, fresh.opt_state, fresh.average))
    after, scalars = step(fresh, batch_of(4))
    assert [float(scalars[name]) for name in ("skipped", "not_finite")] == [1, 0]
    assert after.loss_scale is not None
    assert (float(after.loss_scale.value), int(after.loss_scale.good_steps)) == (2.0**99, 0)
    assert int(after.step) == 1
    jax.tree.map(np.testing.assert_array_equal, (after.params, after.opt_state, after.average), kept)
