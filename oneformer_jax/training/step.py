"""One training step: `forward`, assignment on the host, `losses`, `backward`, `update`.

The host solves the assignment between two jitted functions instead of in a callback inside one: functions with a host
callback never enter the persistent compilation cache, and callbacks can deadlock on several devices. `forward` returns
what the derivative reads (`training.pullback`), and `backward` finishes the work. `update` is apart from `backward`
because that reads the parameters, which `update` donates.

A step may take several batches: their gradients add up to that of one batch as large as all of them, but for the
contrastive loss, which compares the images of each batch alone.

Axes: b images of the global batch, q queries, t rows of the segment table, l supervised layers, n prompts, k tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from oneformer_jax.data.batch import Batch
from oneformer_jax.losses.criterion import Objective
from oneformer_jax.losses.matching import Pairs, assign, pair_slots
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import Params, normalise
from oneformer_jax.models.precision import KERNEL_DTYPES, learning_in
from oneformer_jax.models.predictions import TrainingOutputs
from oneformer_jax.training.optimizer import Names, averaged, global_norm, in_evaluation_mode, without_gradient
from oneformer_jax.training.pullback import Pullback
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

FIRST_SCALE = 2.0**16
STEPS_BEFORE_GROWTH = 2000

Scalars = dict[str, Float[Array, ""]]
"""Numbers of a step by name, on the device."""


class LossScale(NamedTuple):
    """What the loss is multiplied by, lest its gradients vanish in float16 (Micikevicius et al. 2018, section 3.2).

    It doubles after 2000 updates without an overflow, and halves, down to 1, at each overflow, whose update is left
    out. `good_steps` counts the updates since it changed.
    """

    value: Float[Array, ""]
    good_steps: Int[Array, ""]

    def after(self, finite: Bool[Array, ""]) -> "LossScale":
        """The scale of the next step, where the gradients of this one were finite or not."""
        grows = self.good_steps + 1 >= STEPS_BEFORE_GROWTH
        value = jnp.where(finite, jnp.where(grows, 2 * self.value, self.value), jnp.maximum(self.value / 2, 1.0))
        return LossScale(value, jnp.where(finite & ~grows, self.good_steps + 1, 0))


def first_loss_scale(precision: str) -> LossScale | None:
    """None where gradients need no scale."""
    if precision != "16-mixed":
        return None
    return LossScale(jnp.asarray(FIRST_SCALE, jnp.float32), jnp.zeros((), jnp.int32))


class TrainState(NamedTuple):
    """Everything that changes from step to step. `step` counts finished updates.

    `loss_scale` is None unless products are of float16, `average` (of the parameters) unless the run keeps one.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState
    loss_scale: LossScale | None = None
    average: Params | None = None

    @property
    def trained(self) -> Params:
        """The parameters to validate and to use."""
        return self.params if self.average is None else self.average


class StepInputs(NamedTuple):
    """What every step of a run shares: pixel statistics, the rows of the three task tokens and the table of prompts.

    `prompts_of_image`: the most different rows of the prompt table that an image shows.
    """

    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    task_rows: Int[np.ndarray, "3 k"]
    prompt_table: Int[np.ndarray, "n k"]
    prompts_of_image: int


@dataclass(frozen=True)
class StepSettings:
    """How a run makes its steps.

    Random draws depend on (seed, step, global sample index) alone. `frozen` parameters, which the optimizer must leave
    alone too, have no gradient and their parts no dropout. `precision` is that of the spec, `average_decay` that of the
    average of the parameters where the state has one. The state lives as `sharding.state_sharding` says for `strategy`.
    """

    seed: int
    frozen: Names = frozenset()
    precision: str = "32"
    average_decay: float = 0.0
    strategy: Strategy = "ddp"


class Forward(NamedTuple):
    """What the forward pass of a batch leaves: `pullback` finishes it from cotangents of `outputs` to gradients."""

    outputs: TrainingOutputs
    costs: Float[Array, "l b q t"]
    num_segments: Int[Array, " b"]
    pullback: Pullback


class Losses(NamedTuple):
    """The loss of a batch and its parts, and the cotangents of the outputs of its forward pass."""

    scalars: Scalars
    cotangents: TrainingOutputs


class TrainStep:
    """A function from (state, *host batches) to (new state, scalars); it consumes the state it is given.

    The batches are this process's shares. The scalars, on the device, are the total loss, the last layer's share of
    each loss (unweighted), gradient norm and learning rate. An update is left out where loss or gradient are not
    finite: `skipped` counts it, and `not_finite` those that no smaller scale of the loss would mend.

    Its compiled programs are there to be looked at. `normalisers` and `update` run once a step; `forward`, `losses` and
    `backward` once a batch; `add` between batches.
    """

    def __init__(
        self,
        config: OneFormerConfig,
        objective: Objective,
        optimizer: optax.GradientTransformation,
        schedule: optax.Schedule,
        inputs: StepInputs,
        settings: StepSettings,
        mesh: Mesh,
    ) -> None:
        frozen = settings.frozen
        self.config = in_evaluation_mode(config, oneformer.shapes(config), frozen) if frozen else config
        self.objective, self.schedule = objective, schedule
        self.optimizer = optax.with_extra_args_support(optimizer)
        self.inputs, self.settings, self.mesh = inputs, settings, mesh
        # In their order: the end token, which the text encoder looks for, stays the largest.
        self.words, table = np.unique(inputs.prompt_table, return_inverse=True)
        self.prompt_table = table.astype(np.int32)

        everywhere, by_image = replicated(mesh), batch_sharding(mesh, 1)
        self.normalisers = jax.jit(self.shared_normalisers, out_shardings=everywhere)
        self.forward = jax.jit(self.forward_pass, out_shardings=Forward._make((None, by_image, everywhere, None)))
        self.losses = jax.jit(self.losses_and_cotangents, out_shardings=Losses._make((everywhere, None)))
        self.backward = jax.jit(self.backward_pass)
        self.add = jax.jit(partial(jax.tree.map, jnp.add), donate_argnums=0)
        self.update = jax.jit(self.updated, donate_argnums=0)

    def __call__(self, state: TrainState, *host_batches: Batch) -> tuple[TrainState, Scalars]:
        tables = put_batch(tuple(batch.segment_class for batch in host_batches), self.mesh)
        normalisers = self.normalisers(tables)
        total = self._gradients(state, host_batches[0], normalisers)
        for host_batch in host_batches[1:]:
            total = self.add(total, self._gradients(state, host_batch, normalisers))
        gradients, losses = total
        new_state, scalars = self.update(state, gradients, losses["loss"])
        return new_state, losses | scalars

    def _gradients(self, state: TrainState, host_batch: Batch, normalisers: PyTree) -> tuple[Params, Scalars]:
        """What one of the step's batches adds to its gradients and losses."""
        batch = put_batch(host_batch, self.mesh)
        outputs, costs, counts, pullback = self.forward(state.params, state.step, batch)
        pairs = put_pairs(self._assigned(costs, counts), self.mesh)
        scalars, cotangents = self.losses(outputs, state.step, batch, pairs, normalisers, state.loss_scale)
        return self.backward(state.params, pullback, cotangents), scalars

    def _assigned(self, costs: Float[Array, "l b q t"], counts: Int[Array, " b"]) -> Pairs:
        """The pairs of this process's images, solved on the host."""
        num_segments = jax.device_get(counts)
        own_costs, place = own_part(costs, axis=1)
        slots = pair_slots(num_segments, self.mesh.size)
        return assign(own_costs, num_segments[place], num_groups=len(self.mesh.local_devices), slots=slots)

    def _key(self, step: Int[Array, ""]) -> Key[Array, ""]:
        return jax.random.fold_in(jax.random.key(self.settings.seed), step)

    def shared_normalisers(self, segment_classes: tuple[Int[Array, "_ t"], ...]) -> PyTree:
        """What the losses of all batches of the step are divided by."""
        return self.objective.normalisers(segment_classes, self.config.transformer.num_queries)

    def forward_pass(self, params: Params, step: Int[Array, ""], batch: Batch) -> Forward:
        """The network and the matching costs. What the pullback keeps is split over the devices like the images."""
        key = self._key(step)
        dropout = jax.random.fold_in(jax.random.fold_in(key, DROPOUT_STREAM), batch.sample[0])
        network = self._network(batch, dropout)
        if self.settings.strategy != "ddp":
            network = without_gathered(network, self.config.remat)
        outputs, pullback = jax.vjp(network, params)
        costs = self.objective.costs(outputs, batch, key)
        kept = images_split(Pullback.without(params, pullback), len(batch.images), self.mesh)
        return Forward(outputs, costs, jnp.sum(batch.segment_class >= 0, axis=1), kept)

    def _network(self, batch: Batch, dropout: Key[Array, ""]) -> Callable[[Params], TrainingOutputs]:
        """The outputs of a batch as a function of the parameters."""
        config, inputs, frozen = self.config, self.inputs, self.settings.frozen
        dtype = KERNEL_DTYPES[self.settings.precision]
        encoder_rng, decoder_rng = jax.random.split(dropout)
        images = normalise(batch.images, inputs.pixel_mean, inputs.pixel_std)
        tokens = jnp.asarray(inputs.task_rows)[batch.task]

        def network(params: Params) -> TrainingOutputs:
            # Cast first: halves are gathered at half the bytes, and none is kept whole for the backward pass.
            params = self._with_shown_words(without_gradient(params, frozen))
            if dtype is not None:
                params = learning_in(params, dtype, batch_sharding(self.mesh) if self.mesh.size > 1 else None)
            params = gathered(params, self.mesh, self.settings.strategy)
            features = oneformer.encode(params, images, config=config, rng=encoder_rng)
            layers = oneformer.decode(params, features, tokens, config=config, rng=decoder_rng)
            texts = oneformer.encode_text(
                params,
                jnp.asarray(self.prompt_table),
                batch.prompts,
                config=replace(config, text_encoder=replace(config.text_encoder, vocab_size=len(self.words))),
                rows_of_image=inputs.prompts_of_image,
                groups=self.mesh.size,
            )
            return TrainingOutputs(layers, texts, params["logit_scale"])

        return network

    def _with_shown_words(self, params: Params) -> Params:
        """With the embeddings of no words but those of the prompts: the others have no gradient to be reduced."""
        text = params["text_encoder"]
        shown = text["token_embedding"].at[self.words].get(mode="promise_in_bounds", unique_indices=True)
        shown = jax.lax.with_sharding_constraint(shown, replicated(self.mesh))
        return params | {"text_encoder": text | {"token_embedding": shown}}

    def losses_and_cotangents(
        self,
        outputs: TrainingOutputs,
        step: Int[Array, ""],
        batch: Batch,
        pairs: Pairs,
        normalisers: PyTree,
        scale: LossScale | None,
    ) -> Losses:
        """The objective; its cotangents are multiplied by the scale of the loss."""

        def scaled(outputs: TrainingOutputs) -> tuple[Float[Array, ""], tuple[Float[Array, ""], dict[str, Array]]]:
            loss, parts = self.objective.loss(outputs, batch, pairs, normalisers, self._key(step))
            return loss if scale is None else loss * scale.value, (loss, parts)

        (_, (loss, parts)), cotangents = jax.value_and_grad(scaled, has_aux=True)(outputs)
        return Losses({"loss": loss} | {name: jnp.ravel(part)[-1] for name, part in parts.items()}, cotangents)

    def backward_pass(self, params: Params, pullback: Pullback, cotangents: TrainingOutputs) -> Params:
        """Gradients, which live where the parameters do."""
        (gradients,) = pullback(params, cotangents)
        return constrained(gradients, self.mesh, self.settings.strategy)

    def updated(self, state: TrainState, gradients: Params, loss: Float[Array, ""]) -> tuple[TrainState, Scalars]:
        """The state after the step; where loss or gradients are not finite only its counters and its scale change."""
        scale = state.loss_scale
        if scale is not None:
            gradients = jax.tree.map(lambda gradient: gradient / scale.value, gradients)
        norm = global_norm(gradients, whole=self.settings.strategy == "ddp")
        finite = jnp.isfinite(norm) & jnp.isfinite(loss)
        new = jax.lax.platform_dependent(
            finite, state, gradients, norm, cpu=self._stepped_or_left, default=self._stepped_where_finite
        )
        new = constrained(new, self.mesh, self.settings.strategy)
        skipped = 1.0 - finite.astype(jnp.float32)
        scalars = {
            "gradient_norm": norm,
            "lr": jnp.asarray(self.schedule(state.step)),
            "skipped": skipped,
            "not_finite": skipped,
        }
        if scale is not None:
            new = new._replace(loss_scale=scale.after(finite))
            smallest = (scale.value <= 1.0) | ~jnp.isfinite(loss)
            scalars |= {"loss_scale": scale.value, "not_finite": skipped * smallest}
        return new._replace(step=state.step + 1), scalars

    def _stepped_or_left(
        self, finite: Bool[Array, ""], state: TrainState, gradients: Params, norm: Float[Array, ""]
    ) -> TrainState:
        """As a conditional, without which XLA for CPU copies the moments before it writes over them."""
        return jax.lax.cond(finite, self._stepped, lambda state, *_: state, state, gradients, norm)

    def _stepped_where_finite(
        self, finite: Bool[Array, ""], state: TrainState, gradients: Params, norm: Float[Array, ""]
    ) -> TrainState:
        """Leaf by leaf, which XLA for GPUs writes over the state; a conditional needs another one beside it there."""
        return jax.tree.map(partial(jnp.where, finite), self._stepped(state, gradients, norm), state)

    def _stepped(self, state: TrainState, gradients: Params, norm: Float[Array, ""]) -> TrainState:
        """The state after the optimizer's step; `norm` is that of the gradients."""
        updates, opt_state = self.optimizer.update(
            gradients, state.opt_state, state.params, step=state.step, gradient_norm=norm
        )
        params, average = optax.apply_updates(state.params, updates), state.average
        if average is not None:
            average = averaged(average, params, state.step, self.settings.average_decay)
        return state._replace(params=params, opt_state=opt_state, average=average)
