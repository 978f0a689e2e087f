"""The programs of a training step, traced for arrays that nothing holds: to be planned, compiled and looked at."""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding
from jax.stages import Traced
from jax.typing import DTypeLike
from jaxtyping import PyTree

from oneformer_jax.data.batch import Batch
from oneformer_jax.data.geometry import Size
from oneformer_jax.losses.matching import BLOCK, Pairs, pair_slots
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.training.loop import LoopSettings
from oneformer_jax.training.run import Recipe
from oneformer_jax.training.sharding import batch_sharding, make_mesh, replicated, state_shardings
from oneformer_jax.training.step import TrainState, TrainStep, first_loss_scale

SEGMENTS = 16
"""Of an image, where no data is there to say."""
_PROMPT_LENGTH = 12  # tokens of the longest prompt; names of classes are short


class StepPrograms(NamedTuple):
    """In the order in which a step of one batch runs them (see `TrainStep`)."""

    normalisers: Traced
    forward: Traced
    losses: Traced
    backward: Traced
    update: Traced


def traced_programs(step: TrainStep, state: TrainState, batch: Batch) -> StepPrograms:
    """Of a step on its mesh, for a state and a global batch of these shapes (see `stand_in_step`), `SEGMENTS` of each
    image matched. What a program passes to the next is placed as XLA places it: split by image where it has an axis of
    images, else like the state."""
    mesh, strategy = step.mesh, step.settings.strategy
    images, devices = len(batch.images), mesh.size
    everywhere = replicated(mesh)

    def passed(tree: PyTree) -> PyTree:
        def place(leaf: Any, otherwise: Sharding) -> jax.ShapeDtypeStruct:
            axis = next((axis for axis in (0, 1) if leaf.shape[axis : axis + 1] == (images,)), None)
            return _placed(leaf, otherwise if axis is None else batch_sharding(mesh, axis))

        return jax.tree.map(place, tree, state_shardings(tree, mesh, strategy))

    state = jax.tree.map(_placed, state, state_shardings(state, mesh, strategy))
    batch = jax.tree.map(lambda leaf: _placed(leaf, batch_sharding(mesh)), batch)
    loss = jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere)

    normalisers = step.normalisers.trace((batch.segment_class,))
    divisors = jax.tree.map(lambda leaf: _placed(leaf, everywhere), normalisers.out_info)
    forward = step.forward.trace(state.params, state.step, batch)
    outputs, costs, _, pullback = passed(forward.out_info)
    slots = pair_slots(np.full(images, min(SEGMENTS, costs.shape[2])), devices)
    place = jax.ShapeDtypeStruct((devices, slots), jnp.int32, sharding=batch_sharding(mesh))
    query = jax.ShapeDtypeStruct((costs.shape[0], devices, slots), jnp.int32, sharding=batch_sharding(mesh, 1))
    losses = step.losses.trace(outputs, state.step, batch, Pairs(query, place, place), divisors, state.loss_scale)
    backward = step.backward.trace(state.params, pullback, passed(losses.out_info.cotangents))
    gradients = jax.tree.map(_placed, backward.out_info, state_shardings(backward.out_info, mesh, strategy))
    return StepPrograms(normalisers, forward, losses, backward, step.update.trace(state, gradients, loss))


def _placed(leaf: Any, sharding: Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def stand_in_batch(model: OneFormerConfig, images: int, size: Size) -> Batch:
    """The shapes of a global batch of so many images of `size` (height, width), with room for `SEGMENTS` in each."""

    def array(*shape: int, dtype: DTypeLike = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((images, *shape), dtype)

    queries, context = model.transformer.num_queries, model.text_encoder.n_ctx
    pixels, maps = array(*size, 3, dtype=jnp.uint8), array(1, *size, dtype=jnp.int16)
    segments = array(min(queries, -(-SEGMENTS // BLOCK) * BLOCK))
    return Batch(pixels, maps, segments, segments, array(), array(queries - context), array())


def stand_in_step(recipe: Recipe, mesh: Mesh | None = None) -> tuple[TrainStep, TrainState]:
    """The step of a recipe, with a table of prompts that share no word, and the shapes of its state.

    Without a mesh it is that of one device of this machine, where the state is whole.
    """
    model = recipe.model
    if mesh is None:
        recipe, mesh = replace(recipe, step=replace(recipe.step, strategy="ddp")), make_mesh(1)
    loop = LoopSettings(1, 1, 1, 1, 1)
    shape = model.num_classes + 3, _PROMPT_LENGTH
    prompts = np.arange(np.prod(shape), dtype=np.int32).reshape(shape) % model.text_encoder.vocab_size
    step = recipe.make_step(loop, prompts, min(SEGMENTS, model.num_classes) + 1, mesh)
    shapes = oneformer.shapes(model)
    scale = jax.eval_shape(lambda: first_loss_scale(recipe.step.precision))
    average = shapes if recipe.step.average_decay else None
    updates: Any = jax.ShapeDtypeStruct((), jnp.int32)
    return step, TrainState(updates, shapes, jax.eval_shape(step.optimizer.init, shapes), scale, average)
