"""Schedules against the formulas written out by hand."""

import pytest

from oneformer_jax.training.schedule import multi_step, warmup_poly


@pytest.mark.tao(1)
@pytest.mark.parametrize("step", [0, 1, 5, 9, 10, 11, 50, 99])
def test_warmup_poly_follows_the_formula(step: int) -> None:
    schedule = warmup_poly(2e-4, total_steps=100, warmup_iters=10, warmup_factor=0.001)
    alpha = step / 10
    warm = 1.0 if step >= 10 else 0.001 * (1 - alpha) + alpha
    assert float(schedule(step)) == pytest.approx(2e-4 * warm * (1 - step / 101) ** 0.9, rel=1e-5)


def test_warmup_poly_is_positive_at_the_last_update_and_zero_at_most_beyond() -> None:
    schedule = warmup_poly(1.0, total_steps=10, warmup_iters=0, warmup_factor=0.1)
    assert float(schedule(9)) > 0
    assert float(schedule(10_000)) == 0


@pytest.mark.parametrize(("step", "reached"), [(0, 0), (29, 0), (30, 1), (59, 1), (60, 2), (1000, 2)])
def test_multi_step_drops_at_each_step_it_reaches(step: int, reached: int) -> None:
    schedule = multi_step(1e-3, steps=[60, 30], gamma=0.1, warmup_iters=0, warmup_factor=1.0)
    assert float(schedule(step)) == pytest.approx(1e-3 * 0.1**reached, rel=1e-5)


def test_multi_step_without_steps_is_constant_after_warm_up() -> None:
    schedule = multi_step(1e-3, steps=[], gamma=0.1, warmup_iters=4, warmup_factor=0.5)
    assert float(schedule(0)) == pytest.approx(5e-4)
    assert float(schedule(2)) == pytest.approx(7.5e-4)
    assert float(schedule(100)) == pytest.approx(1e-3)
