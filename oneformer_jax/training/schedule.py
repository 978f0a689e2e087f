"""Learning-rate schedules as functions of the step, by the formulas that the spec's scheduler names stand for."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def _warmup(step: Float[Array, ""], warmup_iters: int, warmup_factor: float) -> Float[Array, ""]:
    """Linear warm-up from `warmup_factor` to 1 over `warmup_iters` steps."""
    if warmup_iters <= 0:
        return jnp.ones_like(step)
    progress = jnp.minimum(step / warmup_iters, 1.0)
    return warmup_factor * (1.0 - progress) + progress


def warmup_poly(
    lr: float, total_steps: int, warmup_iters: int, warmup_factor: float, power: float = 0.9
) -> optax.Schedule:
    """`Warmuppoly`: lr * warmup(t) * (1 - t / (total_steps + 1)) ** power.

    The one step beyond the end keeps the last update above zero, as the reference does.
    """

    def schedule(count: int | Int[Array, ""]) -> Float[Array, ""]:
        step = jnp.asarray(count, float)
        decay = jnp.maximum(1.0 - step / (total_steps + 1), 0.0) ** power
        return lr * _warmup(step, warmup_iters, warmup_factor) * decay

    return schedule


def multi_step(
    lr: float, steps: Sequence[int], gamma: float, warmup_iters: int, warmup_factor: float
) -> optax.Schedule:
    """`MultiStep`: lr * warmup(t) * gamma ** (number of `steps` that t has reached); `steps` are iterations."""

    def schedule(count: int | Int[Array, ""]) -> Float[Array, ""]:
        step = jnp.asarray(count, float)
        reached = jnp.sum(jnp.asarray(sorted(steps), float) <= step) if steps else jnp.zeros(())
        return lr * _warmup(step, warmup_iters, warmup_factor) * gamma**reached

    return schedule
