"""Schedules against the formulas written out by hand."""

import optax
import pytest

from oneformer_jax.training.optimizer import ScheduleConfig


def multi_step(steps: tuple[int, ...], warmup_iters: int, warmup_factor: float) -> optax.Schedule:
    config = ScheduleConfig(1e-3, "MultiStep", warmup_iters, warmup_factor, gamma=0.1, decay_steps=steps)
    return config.build(total_steps=2000, steps_per_epoch=10)


@pytest.mark.tao(1)
@pytest.mark.parametrize("step", [0, 1, 5, 9, 10, 11, 50, 99])
def test_warmup_poly_follows_the_formula(step: int) -> None:
    schedule = ScheduleConfig(2e-4, warmup_iters=10, warmup_factor=0.001).build(total_steps=100, steps_per_epoch=10)
    alpha = step / 10
    warm = 1.0 if step >= 10 else 0.001 * (1 - alpha) + alpha
    assert float(schedule(step)) == pytest.approx(2e-4 * warm * (1 - step / 101) ** 0.9, rel=1e-5)


def test_warmup_poly_is_positive_at_the_last_update_and_zero_at_most_beyond() -> None:
    schedule = ScheduleConfig(1.0, warmup_iters=0, warmup_factor=0.1).build(total_steps=10, steps_per_epoch=10)
    assert float(schedule(9)) > 0
    assert float(schedule(10_000)) == 0


@pytest.mark.parametrize(("step", "reached"), [(0, 0), (29, 0), (30, 1), (59, 1), (60, 2), (1000, 2)])
def test_multi_step_drops_at_each_step_it_reaches(step: int, reached: int) -> None:
    schedule = multi_step((60, 30), warmup_iters=0, warmup_factor=1.0)
    assert float(schedule(step)) == pytest.approx(1e-3 * 0.1**reached, rel=1e-5)


@pytest.mark.slow
def test_multi_step_without_steps_is_constant_after_warm_up() -> None:
    schedule = multi_step((), warmup_iters=4, warmup_factor=0.5)
    assert float(schedule(0)) == pytest.approx(5e-4)
    assert float(schedule(2)) == pytest.approx(7.5e-4)
    assert float(schedule(100)) == pytest.approx(1e-3)
