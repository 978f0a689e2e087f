"""What a spec's model costs: parameters, operations, memory. Nothing is run; XLA compiles for the device at hand."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from rich import box
from rich.console import Console
from rich.table import Table

from oneformer_jax.app.run.waiting import waiting
from oneformer_jax.app.settings.training import training_recipe
from oneformer_jax.app.spec import load_spec
from oneformer_jax.checkpoints.contents import bytes_of
from oneformer_jax.data.geometry import Size
from oneformer_jax.models import oneformer
from oneformer_jax.models.compiled_programs import enable_compilation_cache
from oneformer_jax.models.gpu.described import NAME, described_h100s
from oneformer_jax.models.gpu.formulation import ops_of_gpus
from oneformer_jax.models.oneformer import normalise
from oneformer_jax.models.operations import operations
from oneformer_jax.training.run import Recipe
from oneformer_jax.training.sharding import DATA_AXIS
from oneformer_jax.training.step_memory import estimated_memory, planned, training_memory
from oneformer_jax.training.step_programs import SEGMENTS

PARTS = {
    "backbone": ("backbone",),
    "pixel decoder": ("pixel_decoder",),
    "transformer": ("predictor", "task_mlp"),
    "text encoder, only for training": oneformer.TRAINING_ONLY,
}
"""Parts of the model -> top-level keys of the parameters."""


Device = Literal["h100"]
CARDS = (16, 24, 40, 80)
"""Gigabytes of memory that GPUs have."""
SHARE_OF_A_CARD = 0.9
"""The largest share of it that is sensible to give to JAX (docs/gpu.md)."""

Cost = tuple[int, Mapping[str, int]]
"""Operations, and bytes by what they hold."""


def inspect_model(
    spec_path: Path,
    overrides: list[str],
    console: Console,
    *,
    batch: int | None = None,
    size: Size | None = None,
    device: Device | None = None,
) -> None:
    """Prints what a batch of images of `size` (height, width) costs; by default a device's share of a training batch,
    on the devices at hand. With a `device` it is what a step would cost there, and which cards hold it.

    Raises SpecError.
    """
    spec = load_spec(spec_path, overrides)
    recipe = training_recipe(spec)
    batch = batch or spec.dataset.train.batch_size
    height, width = size or spec.dataset.augmentation.train_crop_size
    counts = parameter_counts(oneformer.shapes(recipe.model))
    _print(console, "parameters", {name: f"{count / 1e6:.2f} M" for name, count in counts.items()})
    work = f"{batch} x {height} x {width} pixels, precision {recipe.step.precision}"
    batches = spec.train.accumulate_grad_batches
    if device is not None:
        _print_elsewhere(console, work, recipe, batch, (height, width), batches)
        return

    enable_compilation_cache()
    with waiting("compiling (nothing is run)", console):
        needed = training_memory(recipe, batch, (height, width), batches)
        inference = inference_cost(recipe, batch, (height, width))
    console.print(f"{work}, on {jax.devices()[0].device_kind}:\n")
    for name, count, memory in (
        ("inference, one task", *inference),
        ("training step", needed.operations, needed.parts),
    ):
        _print(console, f"{name}: {count / 1e9:,.2f} GFLOP", _sizes(memory))
    console.print(
        "Operations: of products of matrices and convolutions, a multiplication and an addition are two. Memory: what "
        f"is in use at most, in training during {needed.moment}, by what XLA plans for its programs on this device, "
        f"with {SEGMENTS} segments in an image; waiting batches come on top.",
    )


def _print_elsewhere(console: Console, work: str, recipe: Recipe, batch: int, size: Size, batches: int) -> None:
    """What a training step needs on one H100, which is not there."""
    try:
        mesh = described_h100s(1, DATA_AXIS)
    except (RuntimeError, ValueError):
        mesh = None
    with waiting("compiling for an H100 (nothing is run)" if mesh else "tracing", console):
        if mesh is None:
            parts = estimated_on_gpu(recipe, batch, size)
            source = (
                "An estimate: what is kept is counted from the traced step, working memory is taken to be a tenth of "
                "it. With JAX's plugin for CUDA (pip install -e '.[cuda]'; no GPU is needed) the program is compiled."
            )
        else:
            there = replace(recipe, model=recipe.model.on(mesh))
            needed = training_memory(there, batch, size, batches, mesh)
            parts, source = needed.parts, f"By what XLA plans for its programs, during {needed.moment}."
    _print(console, f"training step: {work}, on one {NAME}, which need not be there", _sizes(parts))
    gigabytes = sum(parts.values()) / 2**30
    held = [str(card) for card in CARDS if gigabytes <= SHARE_OF_A_CARD * card]
    fits = f"fits a card of {', '.join(held)} GB" if held else f"fits no card of {CARDS[-1]} GB"
    console.print(f"{gigabytes:.1f} GiB: {fits}, of which {SHARE_OF_A_CARD:.0%} are used. {source}")


def estimated_on_gpu(recipe: Recipe, batch: int, size: Size) -> dict[str, int]:
    """`estimated_memory` of a step on one GPU, which need not be there."""
    stand_in = Mesh(np.array(jax.devices("cpu")[:1]), (DATA_AXIS,))
    model = replace(recipe.model, remat="light" if recipe.model.remat == "auto" else recipe.model.remat)
    return estimated_memory(replace(recipe, model=replace(model, ops=ops_of_gpus(stand_in))), batch, size)


def _sizes(memory: Mapping[str, int]) -> dict[str, str]:
    rows = {**memory, "all": sum(memory.values())}
    return {part: f"{size / 2**20:,.0f} MiB" for part, size in rows.items()}


def _print(console: Console, title: str, rows: Mapping[str, str]) -> None:
    console.print(title)
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for row in rows.items():
        table.add_row(*row)
    console.print(table)


def parameter_counts(shapes: Any) -> dict[str, int]:
    """How many numbers each part of the model has, and all."""
    counts = {
        name: sum(leaf.size for key in keys if key in shapes for leaf in jax.tree.leaves(shapes[key]))
        for name, keys in PARTS.items()
    }
    return counts | {"all": sum(counts.values())}


def inference_cost(recipe: Recipe, batch: int, size: Size) -> Cost:
    """From pixels to the logits of one task."""
    config = recipe.model
    shapes = {name: part for name, part in oneformer.shapes(config).items() if name not in oneformer.TRAINING_ONLY}

    def predict(params: Any, images: Any, tokens: Any) -> Any:
        pixels = normalise(images, recipe.pixel_mean, recipe.pixel_std)
        return oneformer.predict(params, oneformer.encode(params, pixels, config=config), tokens, config=config)

    images = jax.ShapeDtypeStruct((batch, *size, 3), jnp.uint8)
    tokens = jax.ShapeDtypeStruct((batch, config.task_seq_len), jnp.int32)
    traced = jax.jit(predict).trace(shapes, images, tokens)
    plan = planned(traced.lower())
    inputs = plan.argument_size_in_bytes - bytes_of(shapes)
    memory = {
        "parameters": bytes_of(shapes),
        "images and results": inputs + plan.output_size_in_bytes,
        "working memory": plan.temp_size_in_bytes,
    }
    return operations(traced.jaxpr), memory
