"""The scale of the loss that float16 needs, and the average of the parameters."""

import jax.numpy as jnp
import numpy as np
import pytest

from oneformer_jax.training.optimizer import averaged
from oneformer_jax.training.step import FIRST_SCALE, STEPS_BEFORE_GROWTH, LossScale, first_loss_scale


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
