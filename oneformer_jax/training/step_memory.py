"""How much memory of one device a training step needs, by what XLA plans for its programs. Nothing is run."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Lowered
from jax.typing import DTypeLike

from oneformer_jax.checkpoints.contents import bytes_of
from oneformer_jax.data.batch import Batch
from oneformer_jax.data.geometry import Size
from oneformer_jax.errors import OneFormerError
from oneformer_jax.losses.matching import BLOCK, Pairs, pair_slots
from oneformer_jax.models import oneformer
from oneformer_jax.training.loop import LoopSettings
from oneformer_jax.training.run import Recipe
from oneformer_jax.training.sharding import make_mesh
from oneformer_jax.training.step import TrainState, TrainStep, first_loss_scale

SEGMENTS = 16
"""Of an image, where no data is there to say."""
_PROMPT_LENGTH = 12  # tokens of the longest prompt; names of classes are short


class StepMemory(NamedTuple):
    """Bytes at the moment when the most are in use, which is during `moment`, by what they hold in words.

    Working memory is all that the running program makes besides; `operations` counts those of the whole step (None
    where the backend does not say).
    """

    moment: str
    parts: dict[str, int]
    operations: float | None

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def training_memory(recipe: Recipe, batch: int, size: Size, batches_per_step: int = 1) -> StepMemory:
    """Of a step that takes `batch` images of `size` (height, width) a device, with 16 segments in each.

    Raises OneFormerError: the backend does not say how much memory its programs need.
    """

    def array(*shape: int, dtype: DTypeLike = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch, *shape), dtype)

    queries, context = recipe.model.transformer.num_queries, recipe.model.text_encoder.n_ctx
    images, maps = array(*size, 3, dtype=jnp.uint8), array(1, *size, dtype=jnp.int16)
    segments = array(min(queries, -(-SEGMENTS // BLOCK) * BLOCK))
    shapes = Batch(images, maps, segments, segments, array(), array(queries - context), array())
    slots = pair_slots(np.full(batch, min(SEGMENTS, queries)), 1)
    step, state = stand_in_step(recipe)
    place = jax.ShapeDtypeStruct((1, slots), jnp.int32)
    forward = step.forward.lower(state.params, state.step, shapes)
    outputs, costs, _, pullback = forward.out_info
    pairs = Pairs(jax.ShapeDtypeStruct((costs.shape[0], 1, slots), jnp.int32), place, place)
    normalisers = jax.eval_shape(step.normalisers, (segments,))
    losses = step.losses.lower(outputs, state.step, shapes, pairs, normalisers, state.loss_scale)
    backward = step.backward.lower(pullback, losses.out_info.cotangents)
    update = step.update.lower(state, backward.out_info, jax.ShapeDtypeStruct((), jnp.float32))
    programs = (forward, losses, backward, update)
    plans = [planned(program) for program in programs]
    temporary = [plan.temp_size_in_bytes for plan in plans]
    kept, cotangents, _, written = (plan.output_size_in_bytes for plan in plans)
    written -= plans[-1].alias_size_in_bytes  # over its arguments

    gradients = bytes_of(state.params)
    summed = gradients if batches_per_step > 1 else 0  # of the batches before
    # What a program holds besides its arguments, which gradients there are, and what waits for the backward pass.
    moments = {
        "the forward pass": (temporary[0], summed, kept),
        "the losses": (temporary[1] + cotangents, summed, kept),
        "the backward pass": (temporary[2] + cotangents, summed + gradients, kept),
        "the update": (temporary[3] + written, gradients, 0),
    }
    moment, (working, held, waiting) = max(moments.items(), key=lambda item: sum(item[1]))
    counts = [(program.cost_analysis() or {}).get("flops") for program in programs]
    share = [batches_per_step * count for count in counts[:3] if count is not None]
    parts = {
        "parameters": gradients,
        "optimizer": bytes_of((state.opt_state, state.loss_scale)),
        "average": bytes_of(state.average),
        "gradients": held,
        "batch": bytes_of(shapes) if waiting else 0,
        "kept for the backward pass": waiting,
        "working memory": working,
    }
    operations = None if None in counts else sum(share) + counts[3]
    return StepMemory(moment, {name: size for name, size in parts.items() if size}, operations)


def planned(lowered: Lowered) -> Any:
    """What XLA plans for a program, in bytes (`CompiledMemoryStats`).

    Raises OneFormerError where the backend does not say it.
    """
    plan = lowered.compile().memory_analysis()
    if plan is None:
        raise OneFormerError(f"the backend {jax.default_backend()} does not say how much memory its programs need")
    return plan


def stand_in_step(recipe: Recipe) -> tuple[TrainStep, TrainState]:
    """The step of a recipe on one device, with a table of prompts that say nothing, and the shapes of its state."""
    model = recipe.model
    recipe = replace(recipe, step=replace(recipe.step, strategy="ddp"))
    loop = LoopSettings(1, 1, 1, 1, 1)
    prompts = np.zeros((model.num_classes + 3, _PROMPT_LENGTH), np.int32)
    step = recipe.make_step(loop, prompts, min(SEGMENTS, model.num_classes) + 1, make_mesh(1))
    shapes = oneformer.shapes(model)
    scale = jax.eval_shape(lambda: first_loss_scale(recipe.step.precision))
    average = shapes if recipe.step.average_decay else None
    updates: Any = jax.ShapeDtypeStruct((), jnp.int32)
    return step, TrainState(updates, shapes, jax.eval_shape(step.optimizer.init, shapes), scale, average)
