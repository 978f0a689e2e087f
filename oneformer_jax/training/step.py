"""One training step: `forward`, assignment on the host, `criterion`, `backward`, `update`.

The host solves the assignment between two jitted functions instead of in a callback inside one: functions with a host
callback never enter the persistent compilation cache, and callbacks can deadlock on several devices. `jax.vjp`'s
pullback is a pytree, so `forward` can return it and `backward` finish the work. `update` is apart from `backward`
because the pullback shares buffers with the parameters that `update` donates.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from oneformer_jax.data.batch import Batch
from oneformer_jax.losses.assignment import assign, pair_slots
from oneformer_jax.losses.config import CriterionConfig
from oneformer_jax.losses.criterion import criterion
from oneformer_jax.losses.matching import matching_costs
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.normalise import normalise
from oneformer_jax.training.optimizer import global_norm
from oneformer_jax.training.sharding import put_batch, put_pairs

# Dropout draws apart from the losses, which use the streams below these of the same key of the step.
ENCODER_STREAM, DECODER_STREAM = 2, 3


class TrainState(NamedTuple):
    """Everything that changes from step to step. `step` counts finished updates (int32 scalar)."""

    step: jax.Array
    params: Any
    opt_state: Any


class StepInputs(NamedTuple):
    """What every step of a run shares: pixel statistics, task token rows (3, length) and the prompt table (N, L)."""

    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    task_rows: np.ndarray
    prompt_table: np.ndarray


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
    config: OneFormerConfig,
    criterion_config: CriterionConfig,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    inputs: StepInputs,
    *,
    mesh: Mesh,
    seed: int,
) -> TrainStep:
    """A function from (state, host batch) to (new state, scalars on the device); it consumes the state it is given.

    The scalars are the total loss, the last layer's share of each loss (unweighted), gradient norm and learning rate.
    Random draws depend on (seed, step, global sample index) alone. An update whose gradient is not finite is left out;
    `skipped` counts it in the returned scalars.
    """

    def step_key(step: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.key(seed), step)

    @jax.jit
    def forward(params: Any, step: jax.Array, batch: Batch) -> tuple[Any, jax.Array, Any]:
        key = step_key(step)
        images = normalise(batch.images, inputs.pixel_mean, inputs.pixel_std)
        tokens = jnp.asarray(inputs.task_rows)[batch.task]

        def predict(params: Any) -> Any:
            features = oneformer.encode(params, images, config=config, rng=jax.random.fold_in(key, ENCODER_STREAM))
            rng = jax.random.fold_in(key, DECODER_STREAM)
            layers = oneformer.decode(params, features, tokens, config=config, rng=rng)
            texts = oneformer.encode_text(params, jnp.asarray(inputs.prompt_table), batch.prompts, config=config)
            return layers, texts, params["logit_scale"]

        outputs, pullback = jax.vjp(predict, params)
        costs = matching_costs(outputs[0], batch, key, criterion_config)
        return outputs, costs, pullback

    @jax.jit
    def losses(outputs: Any, step: jax.Array, batch: Batch, pairs: Any) -> Any:
        def total(outputs: Any) -> Any:
            layers, texts, logit_scale = outputs
            return criterion(layers, batch, pairs, texts, logit_scale, step_key(step), criterion_config)

        (loss, parts), cotangents = jax.value_and_grad(total, has_aux=True)(outputs)
        return loss, {name: jnp.ravel(part)[-1] for name, part in parts.items()}, cotangents

    @jax.jit
    def backward(pullback: Any, cotangents: Any) -> Any:
        (gradients,) = pullback(cotangents)
        return gradients

    def apply(state: TrainState, gradients: Any) -> TrainState:
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        return TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state)

    def update(state: TrainState, gradients: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        norm = global_norm(gradients)
        finite = jnp.isfinite(norm)
        new = jax.lax.cond(finite, apply, lambda state, _: state._replace(step=state.step + 1), state, gradients)
        return new, {"gradient_norm": norm, "lr": schedule(state.step), "skipped": 1.0 - finite.astype(jnp.float32)}

    update = jax.jit(update, donate_argnums=0)

    def step(state: TrainState, host_batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        batch = put_batch(host_batch, mesh)
        outputs, costs, pullback = forward(state.params, state.step, batch)
        num_segments = (host_batch.segment_class >= 0).sum(axis=1)
        slots = pair_slots(num_segments, mesh.size)
        pairs = assign(jax.device_get(costs), num_segments, num_groups=mesh.size, slots=slots)
        loss, parts, cotangents = losses(outputs, state.step, batch, put_pairs(pairs, mesh))
        gradients = backward(pullback, cotangents)
        new_state, scalars = update(state, gradients)
        return new_state, {"loss": loss} | parts | scalars

    return step
