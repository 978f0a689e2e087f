"""Learning-rate schedules as functions of the step, by the formulas that the spec's scheduler names stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True)
class ScheduleConfig:
    """The learning rate over a training whose length is not known yet: `lr` at its largest.

    `MultiStep` multiplies it by `gamma` at each of `decay_steps`, or of `decay_epochs` where these are given.
    """

    lr: float = 1e-5
    kind: Literal["Warmuppoly", "MultiStep"] = "Warmuppoly"
    warmup_iters: int = 1000
    warmup_factor: float = 0.001
    gamma: float = 0.1
    decay_steps: tuple[int, ...] = (327778, 355092)
    decay_epochs: tuple[int, ...] | None = None

    def decays(self, steps_per_epoch: int) -> tuple[int, ...]:
        """The steps at which `MultiStep` decays."""
        if self.decay_epochs is None:
            return self.decay_steps
        return tuple(epoch * steps_per_epoch for epoch in self.decay_epochs)

    def build(self, total_steps: int, steps_per_epoch: int) -> optax.Schedule:
        """The learning rate of a training of this length."""
        warmup = self.warmup_iters, self.warmup_factor
        if self.kind == "MultiStep":
            return multi_step(self.lr, self.decays(steps_per_epoch), self.gamma, *warmup)
        return warmup_poly(self.lr, total_steps, *warmup)
