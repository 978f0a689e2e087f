"""One training step: `forward`, assignment on the host, `criterion`, `backward`, `update`.

The host solves the assignment between two jitted functions instead of in a callback inside one: functions with a host
callback never enter the persistent compilation cache, and callbacks can deadlock on several devices. `jax.vjp`'s
pullback is a pytree, so `forward` can return it and `backward` finish the work. `update` is apart from `backward`
because the pullback shares buffers with the parameters that `update` donates.

A step may take several batches: their gradients add up to that of one batch as large as all of them, but for the
contrastive loss, which compares the images of each batch alone.
"""

from collections.abc import Callable
from functools import partial
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
from oneformer_jax.losses.normalisers import Normalisers, normalisers
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.normalise import normalise
from oneformer_jax.training.frozen import Names, in_evaluation_mode, without_gradient
from oneformer_jax.training.moving_average import averaged
from oneformer_jax.training.optimizer import global_norm
from oneformer_jax.training.precision import LossScale, in_kernel_dtype, unscaled
from oneformer_jax.training.sharding import (
    Strategy,
    batch_sharding,
    constrained,
    gathered,
    images_split,
    own_part,
    put_batch,
    put_pairs,
    replicated,
    without_gathered,
)

# Dropout draws apart from the losses, which use the streams below this one of the same key of the step.
DROPOUT_STREAM = 2


class TrainState(NamedTuple):
    """Everything that changes from step to step. `step` counts finished updates (int32 scalar).

    `loss_scale` is None unless products are of float16, `average` (of the parameters) unless the run keeps one.
    """

    step: jax.Array
    params: Any
    opt_state: Any
    loss_scale: LossScale | None = None
    average: Any = None

    @property
    def trained(self) -> Any:
        """The parameters to validate and to use."""
        return self.params if self.average is None else self.average


class StepInputs(NamedTuple):
    """What every step of a run shares: pixel statistics, task token rows (3, length) and the prompt table (N, L).

    `prompts_of_image`: the most different rows of the prompt table that an image shows.
    """

    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    task_rows: np.ndarray
    prompt_table: np.ndarray
    prompts_of_image: int


class TrainStep(NamedTuple):
    """Called with the state and this process's share of one or more batches. The compiled parts are there to be looked
    at: `forward`, `losses` and `backward` run once a batch, `update` once a step."""

    run: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    forward: Any
    losses: Any
    backward: Any
    update: Any

    def __call__(self, state: TrainState, *host_batches: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        return self.run(state, *host_batches)


def make_train_step(
    config: OneFormerConfig,
    criterion_config: CriterionConfig,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    inputs: StepInputs,
    *,
    mesh: Mesh,
    seed: int,
    frozen: Names = frozenset(),
    precision: str = "32",
    average_decay: float = 0.0,
    strategy: Strategy = "ddp",
) -> TrainStep:
    """A function from (state, *host batches) to (new state, scalars on the device); it consumes the state it is given.

    The state lives as `sharding.state_sharding` says for `mesh` and `strategy`.

    The scalars are the total loss, the last layer's share of each loss (unweighted), gradient norm and learning rate.
    Random draws depend on (seed, step, global sample index) alone. `frozen` parameters, which `optimizer` must leave
    alone too, have no gradient and their parts no dropout. `precision` is that of the spec,
    `average_decay` that of the average of the parameters where the state has one. An update is left out where loss or
    gradient are not finite; `skipped` counts it in the returned scalars, and `not_finite` those that no smaller scale
    of the loss would mend.
    """

    if frozen:
        config = in_evaluation_mode(config, oneformer.shapes(config), frozen)

    def step_key(step: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.key(seed), step)

    everywhere = replicated(mesh)

    @partial(jax.jit, out_shardings=(None, batch_sharding(mesh, 1), everywhere, None))
    def forward(params: Any, step: jax.Array, batch: Batch) -> tuple[Any, jax.Array, jax.Array, Any]:
        key = step_key(step)
        dropout = jax.random.fold_in(key, DROPOUT_STREAM)
        encoder_rng, decoder_rng = jax.random.split(jax.random.fold_in(dropout, batch.sample[0]))
        images = normalise(batch.images, inputs.pixel_mean, inputs.pixel_std)
        tokens = jnp.asarray(inputs.task_rows)[batch.task]

        def predict(params: Any) -> Any:
            # Cast first: halves are gathered at half the bytes, and none is kept whole for the backward pass.
            params = gathered(in_kernel_dtype(without_gradient(params, frozen), precision), mesh, strategy)
            features = oneformer.encode(params, images, config=config, rng=encoder_rng)
            layers = oneformer.decode(params, features, tokens, config=config, rng=decoder_rng)
            texts = oneformer.encode_text(
                params,
                jnp.asarray(inputs.prompt_table),
                batch.prompts,
                config=config,
                rows_of_image=inputs.prompts_of_image,
                groups=mesh.size,
            )
            return layers, texts, params["logit_scale"]

        outputs, pullback = jax.vjp(predict if strategy == "ddp" else without_gathered(predict), params)
        costs = matching_costs(outputs[0], batch, key, criterion_config)
        pullback = images_split(pullback, len(images), mesh, besides=params)
        return outputs, costs, jnp.sum(batch.segment_class >= 0, axis=1), pullback

    @partial(jax.jit, out_shardings=(everywhere, None))
    def losses(
        outputs: Any, step: jax.Array, batch: Batch, pairs: Any, over: Normalisers, scale: LossScale | None
    ) -> Any:
        def total(outputs: Any) -> Any:
            layers, texts, logit_scale = outputs
            loss, parts = criterion(layers, batch, pairs, texts, logit_scale, over, step_key(step), criterion_config)
            return loss if scale is None else loss * scale.value, (loss, parts)

        (_, (loss, parts)), cotangents = jax.value_and_grad(total, has_aux=True)(outputs)
        return {"loss": loss} | {name: jnp.ravel(part)[-1] for name, part in parts.items()}, cotangents

    @jax.jit
    def backward(pullback: Any, cotangents: Any) -> Any:
        (gradients,) = pullback(cotangents)
        return constrained(gradients, mesh, strategy)

    def apply(state: TrainState, gradients: Any) -> TrainState:
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params, average = optax.apply_updates(state.params, updates), state.average
        if average is not None:
            average = averaged(average, params, state.step, average_decay)
        return state._replace(params=params, opt_state=opt_state, average=average)

    def update(state: TrainState, gradients: Any, loss: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        scale = state.loss_scale
        gradients = unscaled(gradients, scale)
        norm = global_norm(gradients)
        finite = jnp.isfinite(norm) & jnp.isfinite(loss)
        new = constrained(jax.lax.cond(finite, apply, lambda state, _: state, state, gradients), mesh, strategy)
        skipped = 1.0 - finite.astype(jnp.float32)
        scalars = {"gradient_norm": norm, "lr": schedule(state.step), "skipped": skipped, "not_finite": skipped}
        if scale is not None:
            new = new._replace(loss_scale=scale.after(finite))
            smallest = (scale.value <= 1.0) | ~jnp.isfinite(loss)
            scalars |= {"loss_scale": scale.value, "not_finite": skipped * smallest}
        return new._replace(step=state.step + 1), scalars

    update = jax.jit(update, donate_argnums=0)
    add = jax.jit(partial(jax.tree.map, jnp.add), donate_argnums=0)

    @partial(jax.jit, out_shardings=everywhere)
    def normalisers_of(segment_classes: tuple[jax.Array, ...]) -> Normalisers:
        return normalisers(segment_classes, config.transformer.num_queries, criterion_config.no_object_weight)

    def share(state: TrainState, host_batch: Batch, over: Normalisers) -> tuple[Any, dict[str, jax.Array]]:
        """The gradients and losses of one of the step's batches."""
        batch = put_batch(host_batch, mesh)
        outputs, costs, counts, pullback = forward(state.params, state.step, batch)
        num_segments = jax.device_get(counts)
        own_costs, place = own_part(costs, axis=1)
        slots = pair_slots(num_segments, mesh.size)
        pairs = assign(own_costs, num_segments[place], num_groups=len(mesh.local_devices), slots=slots)
        parts, cotangents = losses(outputs, state.step, batch, put_pairs(pairs, mesh), over, state.loss_scale)
        return backward(pullback, cotangents), parts

    def step(state: TrainState, *host_batches: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        over = normalisers_of(put_batch(tuple(batch.segment_class for batch in host_batches), mesh))
        total = share(state, host_batches[0], over)
        for host_batch in host_batches[1:]:
            total = add(total, share(state, host_batch, over))
        gradients, losses_of_step = total
        new_state, scalars = update(state, gradients, losses_of_step["loss"])
        return new_state, losses_of_step | scalars

    return TrainStep(step, forward, losses, backward, update)
