"""What a spec's model costs: parameters, operations, memory. Nothing is run; XLA compiles for the device at hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from oneformer_jax.actions import configure
from oneformer_jax.actions.architecture import model_config
from oneformer_jax.actions.execute import enable_compilation_cache
from oneformer_jax.data.geometry import Size
from oneformer_jax.errors import OneFormerError
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.normalise import normalise
from oneformer_jax.spec import Spec, load_spec
from oneformer_jax.training.frozen import in_evaluation_mode, without_gradient
from oneformer_jax.training.optimizer import make_optimizer
from oneformer_jax.training.precision import in_kernel_dtype

PARTS = {
    "backbone": ("backbone",),
    "pixel decoder": ("pixel_decoder",),
    "transformer": ("predictor", "task_mlp"),
    "text encoder, only for training": oneformer.TRAINING_ONLY,
}
"""Parts of the model -> top-level keys of the parameters."""

_PROMPT_LENGTH = 12  # tokens of the longest prompt; names of classes are short


@dataclass(frozen=True)
class Cost:
    """Floating-point operations (None where the backend does not tell), and bytes by what they hold."""

    flops: float | None
    memory: Mapping[str, int]


def inspect_model(
    spec_path: Path, overrides: list[str], console: Console, *, batch: int | None = None, size: Size | None = None
) -> None:
    """Prints what a batch of images of `size` (height, width) costs; by default a device's share of a training batch.

    Raises SpecError.
    """
    spec = load_spec(spec_path, overrides)
    batch = batch or spec.dataset.train.batch_size
    height, width = size or spec.dataset.augmentation.train_crop_size
    counts = parameter_counts(oneformer.shapes(model_config(spec)))
    _print(console, "parameters", {name: f"{count / 1e6:.2f} M" for name, count in counts.items()})

    enable_compilation_cache()
    with console.status("compiling (nothing is run) ..."):
        costs = {
            "inference, one task": inference_cost(spec, batch, (height, width)),
            "training step": training_cost(spec, batch, (height, width)),
        }
    device = jax.devices()[0].device_kind
    console.print(f"{batch} x {height} x {width} pixels, precision {spec.train.precision}, on {device}:\n")
    for name, cost in costs.items():
        flops = "operations unknown here" if cost.flops is None else f"{cost.flops / 1e9:,.2f} GFLOP"
        rows = dict(cost.memory) | {"all": sum(cost.memory.values())}
        _print(console, f"{name}: {flops}", {part: f"{size / 2**20:,.0f} MiB" for part, size in rows.items()})
    console.print(
        "Operations: XLA's count, a multiplication and an addition are two. Memory: what XLA plans for its programs on "
        "this device; matching, losses and waiting batches come on top.",
    )


def _print(console: Console, title: str, rows: Mapping[str, str]) -> None:
    console.print(title, highlight=False)
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for row in rows.items():
        table.add_row(*row)
    console.print(table)


def parameter_counts(shapes: Any) -> dict[str, int]:
    """How many numbers each part of the model has, and all."""
    counts = {name: _count({key: shapes[key] for key in keys if key in shapes}) for name, keys in PARTS.items()}
    return counts | {"all": sum(counts.values())}


def inference_cost(spec: Spec, batch: int, size: Size) -> Cost:
    """From pixels to the logits of one task."""
    config = model_config(spec)
    shapes = {name: part for name, part in oneformer.shapes(config).items() if name not in oneformer.TRAINING_ONLY}

    def predict(params: Any, images: Any, tokens: Any) -> Any:
        pixels = normalise(images, spec.dataset.pixel_mean, spec.dataset.pixel_std)
        return oneformer.decode(params, oneformer.encode(params, pixels, config=config), tokens, config=config).final()

    lowered = jax.jit(predict).lower(shapes, *_images_and_tokens(config, batch, size))
    planned = _plan(lowered)
    inputs = planned.argument_size_in_bytes - _bytes(shapes)
    memory = {
        "parameters": _bytes(shapes),
        "images and results": inputs + planned.output_size_in_bytes,
        "working memory": planned.temp_size_in_bytes,
    }
    return Cost(_flops(lowered), memory)


def training_cost(spec: Spec, batch: int, size: Size) -> Cost:
    """Forward, backward and the optimizer's state: the most that is there at a time."""
    config = model_config(spec)
    shapes = oneformer.shapes(config)
    frozen = configure.frozen(spec, shapes)
    optimizer = make_optimizer(configure.optimizer_config(spec), lambda _: 0.0, frozen=frozen)
    config = in_evaluation_mode(config, shapes, frozen)

    def forward(params: Any, images: Any, tokens: Any, table: Any, prompts: Any, rng: Any) -> Any:
        pixels = normalise(images, spec.dataset.pixel_mean, spec.dataset.pixel_std)

        def predict(params: Any) -> Any:
            params = in_kernel_dtype(without_gradient(params, frozen), spec.train.precision)
            layers = oneformer.decode(
                params, oneformer.encode(params, pixels, config=config, rng=rng), tokens, config=config, rng=rng
            )
            return layers, oneformer.encode_text(params, table, prompts, config=config)

        return jax.vjp(predict, params)

    table = jax.ShapeDtypeStruct((config.num_classes, _PROMPT_LENGTH), jnp.int32)
    prompts = jax.ShapeDtypeStruct((batch, config.transformer.num_queries - config.text_encoder.n_ctx), jnp.int32)
    rng = jax.eval_shape(jax.random.key, 0)
    lowered = jax.jit(forward).lower(shapes, *_images_and_tokens(config, batch, size), table, prompts, rng)
    outputs, pullback = lowered.out_info
    lowered_back = jax.jit(lambda pullback, cotangents: pullback(cotangents)).lower(pullback, outputs)
    first, second = (_plan(program) for program in (lowered, lowered_back))
    gradients = _bytes(shapes)
    memory = {
        "parameters": _bytes(shapes),
        "optimizer": _bytes(jax.eval_shape(optimizer.init, shapes)),
        "gradients": gradients,
        "kept for the backward pass": first.output_size_in_bytes,
        "working memory": max(first.temp_size_in_bytes - gradients, second.temp_size_in_bytes),
    }
    operations = [_flops(lowered), _flops(lowered_back)]
    return Cost(None if None in operations else sum(filter(None, operations)), memory)


def _images_and_tokens(config: OneFormerConfig, batch: int, size: Size) -> tuple[Any, Any]:
    images = jax.ShapeDtypeStruct((batch, *size, 3), jnp.uint8)
    return images, jax.ShapeDtypeStruct((batch, config.task_seq_len), jnp.int32)


def _plan(lowered: Any) -> Any:
    plan = lowered.compile().memory_analysis()
    if plan is None:
        raise OneFormerError(f"the backend {jax.default_backend()} does not tell how much memory its programs need")
    return plan


def _flops(lowered: Any) -> float | None:
    return (lowered.cost_analysis() or {}).get("flops")


def _count(shapes: Any) -> int:
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


def _bytes(shapes: Any) -> int:
    return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
