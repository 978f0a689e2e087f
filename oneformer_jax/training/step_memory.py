"""How much memory of one device a training step needs, by what XLA plans for its programs. Nothing is run."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh
from jax.stages import Lowered

from oneformer_jax.checkpoints.contents import bytes_of
from oneformer_jax.data.geometry import Size
from oneformer_jax.errors import OneFormerError
from oneformer_jax.models import oneformer
from oneformer_jax.models.operations import operations
from oneformer_jax.training.run import Recipe
from oneformer_jax.training.step_programs import stand_in_batch, stand_in_step, traced_programs

WORKING = 0.1
"""Of what is kept: the temporary memory of the compiled backward pass of Swin-L at 1024x1024, batch 2, in bfloat16."""


class StepMemory(NamedTuple):
    """Bytes at the moment when the most are in use, which is during `moment`, by what they hold in words.

    Working memory is all that the running program makes besides; `operations` counts those of the whole step.
    """

    moment: str
    parts: dict[str, int]
    operations: int

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def least_memory(recipe: Recipe, batch: int, size: Size) -> dict[str, int]:
    """Bytes without which no step of `batch` images of `size` (height, width) is possible on a device, whatever the
    backbone, by what they hold in words. Nothing is compiled.

    Parameters, gradients and both moments of AdamW are float32, and whole unless they are split over devices; each
    image is there in uint8 and float32, and its mask features, at a quarter of its size, once for the backward pass.
    """
    pixels = batch * size[0] * size[1]
    held = {
        "images": 15 * pixels,
        "mask features": 4 * recipe.model.pixel_decoder.mask_dim * (pixels // 16),
    }
    if recipe.step.strategy == "ddp":
        held["parameters, gradients and moments"] = 4 * bytes_of(oneformer.shapes(recipe.model))
    return held


def training_memory(
    recipe: Recipe, batch: int, size: Size, batches_per_step: int = 1, mesh: Mesh | None = None
) -> StepMemory:
    """Of a step that takes `batch` images of `size` (height, width) a device, with 16 segments in each: on one device
    of this machine, or on that of `mesh`.

    Raises OneFormerError: the backend does not say how much memory its programs need.
    """
    step, state = stand_in_step(recipe, mesh)
    shapes = stand_in_batch(recipe.model, batch, size)
    _, *traced = traced_programs(step, state, shapes)  # the normalisers are a few numbers
    programs = [program.lower() for program in traced]
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
    *of_batch, of_update = (operations(program.jaxpr) for program in traced)
    parts = {
        "parameters": gradients,
        "optimizer": bytes_of((state.opt_state, state.loss_scale)),
        "average": bytes_of(state.average),
        "gradients": held,
        "batch": bytes_of(shapes) if waiting else 0,
        "kept for the backward pass": waiting,
        "working memory": working,
    }
    count = batches_per_step * sum(of_batch) + of_update
    return StepMemory(moment, {name: size for name, size in parts.items() if size}, count)


def estimated_memory(recipe: Recipe, batch: int, size: Size) -> dict[str, int]:
    """An estimate of the same where a compiler for the device is missing: bytes by what they hold, in the backward
    pass. What is kept for it is that of the traced step; its working memory is taken to be `WORKING` of that.

    It is for one device, and the model as it is computed there (`OneFormerConfig.on`).
    """
    step, state = stand_in_step(recipe)
    shapes = stand_in_batch(recipe.model, batch, size)
    kept = bytes_of(jax.eval_shape(step.forward_pass, state.params, state.step, shapes).pullback)
    parameters = bytes_of(state.params)
    parts = {
        "parameters": parameters,
        "optimizer": bytes_of((state.opt_state, state.loss_scale)),
        "average": bytes_of(state.average),
        "gradients": parameters,
        "batch": bytes_of(shapes),
        "kept for the backward pass": kept,
        "working memory": round(WORKING * kept),
    }
    return {name: size for name, size in parts.items() if size}


@runtime_checkable
class Plan(Protocol):
    """What XLA plans for a program, in bytes: the part of its `CompiledMemoryStats` that is read here."""

    argument_size_in_bytes: int
    output_size_in_bytes: int
    temp_size_in_bytes: int
    alias_size_in_bytes: int


def planned(lowered: Lowered) -> Plan:
    """What XLA plans for a program.

    Raises OneFormerError where the backend does not say it.
    """
    plan = lowered.compile().memory_analysis()
    if plan is None:
        raise OneFormerError(f"the backend {jax.default_backend()} does not say how much memory its programs need")
    return plan
