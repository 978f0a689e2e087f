"""This project's side of the comparisons: jitted JAX. Every `run` returns when its results are there."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import unflatten_dict
from safetensors import safe_open

from benchmarks.machine import peak_memory_mib
from benchmarks.workload import (
    BACKBONES,
    CLASSES,
    DROP_PATH,
    LEARNING_RATE,
    MAX_NORM,
    PANOPTIC,
    PIXEL_MEAN,
    PIXEL_STD,
    WEIGHT_DECAY,
    AttentionWorkload,
    Workload,
)
from oneformer_jax.data.batch import Batch
from oneformer_jax.data.task_text import task_tokens
from oneformer_jax.losses.criterion import OneFormerObjective
from oneformer_jax.models import oneformer
from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.compiled_programs import enable_compilation_cache
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.ops import deformable_attention, using
from oneformer_jax.models.precision import with_kernels_in
from oneformer_jax.models.predictions import Predictions
from oneformer_jax.training.optimizer import OptimizerConfig, make_optimizer
from oneformer_jax.training.sharding import make_mesh, put_replicated
from oneformer_jax.training.step import StepInputs, StepSettings, TrainState, TrainStep


def model_config(workload: Workload) -> OneFormerConfig:
    backbone = SwinConfig(**BACKBONES[workload.backbone], drop_path_rate=DROP_PATH)
    return OneFormerConfig(num_classes=CLASSES, backbone=backbone)


def read_weights(path: Path) -> dict[str, Any]:
    """The parameter tree of a safetensors file, one array at a time."""
    with safe_open(path, framework="np") as file:
        flat = {tuple(name.split("/")): jnp.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    return unflatten_dict(flat)


def forward(params: Any, images: jax.Array, task: jax.Array, *, config: OneFormerConfig) -> Predictions:
    return oneformer.predict(params, oneformer.encode(params, images, config=config), task, config=config)


def _flops(function: Any, *arguments: Any) -> float:
    """Floating point operations of a jitted function, counted by XLA before it optimises."""
    return function.lower(*arguments).cost_analysis()["flops"]


class ThisProject:
    """What all sides of this side share."""

    def __init__(self) -> None:
        enable_compilation_cache()

    def device(self) -> str:
        return jax.devices()[0].device_kind

    def memory(self) -> float:
        """Peak in MiB: of the process, on a GPU that of the device."""
        statistics = jax.devices()[0].memory_stats() or {}
        return statistics["peak_bytes_in_use"] / 2**20 if "peak_bytes_in_use" in statistics else peak_memory_mib()

    def matmul_peak(self, repeats: int = 10) -> float:
        """FLOP/s of one large float32 matrix product, the fastest of some."""
        n = 2048 if jax.devices()[0].platform == "cpu" else 8192
        a = jax.random.normal(jax.random.key(0), (n, n))
        product = jax.jit(jnp.matmul)
        product(a, a).block_until_ready()
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            product(a, a).block_until_ready()
            times.append(time.perf_counter() - start)
        return 2 * n**3 / min(times)


class Inference(ThisProject):
    """Images and task tokens -> class and mask logits of the last layer."""

    def __init__(self, workload: Workload, weights: Path) -> None:
        super().__init__()
        params = read_weights(weights)
        self._params = with_kernels_in(params, jnp.bfloat16) if workload.precision == "bf16" else params
        self._inputs = jnp.asarray(workload.images), jnp.asarray(workload.task)
        self._forward = jax.jit(partial(forward, config=model_config(workload).on(make_mesh(1))))

    def run(self) -> None:
        jax.block_until_ready(self._forward(self._params, *self._inputs))

    def outputs(self) -> list[np.ndarray]:
        return [np.asarray(x) for x in self._forward(self._params, *self._inputs)]

    def flops(self) -> float:
        return _flops(self._forward, self._params, *self._inputs)


class Training(ThisProject):
    """A whole step of `training.step`: forward, matching, losses, backward, clipping, AdamW."""

    def __init__(self, workload: Workload, weights: Path) -> None:
        super().__init__()
        self._config, self._workload = model_config(workload), workload
        mesh = make_mesh(1)
        schedule = optax.constant_schedule(LEARNING_RATE)
        optimizer = make_optimizer(OptimizerConfig(weight_decay=WEIGHT_DECAY, clip_value=MAX_NORM), schedule)
        shown = max(len(set(rows)) for rows in workload.prompts.tolist())
        inputs = StepInputs(PIXEL_MEAN, PIXEL_STD, task_tokens(0, 77), workload.prompt_table, shown)
        settings = StepSettings(seed=0, precision="bf16-mixed" if workload.precision == "bf16" else "32")
        self._step = TrainStep(self._config.on(mesh), OneFormerObjective(), optimizer, schedule, inputs, settings, mesh)
        params = put_replicated(read_weights(weights), mesh)
        self._state = TrainState(put_replicated(jnp.zeros((), jnp.int32), mesh), params, optimizer.init(params))
        samples = np.arange(workload.batch, dtype=np.int32)
        self._batch = Batch(
            images=workload.pixels,
            segment_index=workload.segments[:, None],
            segment_class=workload.segment_class,
            segment_plane=np.zeros_like(workload.segment_class),
            task=np.full_like(samples, PANOPTIC),
            prompts=workload.prompts,
            sample=samples,
        )
        self._scalars: dict[str, jax.Array] = {}

    def run(self) -> None:
        self._state, self._scalars = jax.block_until_ready(self._step(self._state, self._batch))

    def loss(self) -> float:
        """Of the last step."""
        return float(self._scalars["loss"])

    def flops(self) -> float:
        """Three times the forward pass: the backward pass has two products for each of its products."""
        config, workload = self._config, self._workload

        def network(params: Any, images: jax.Array, task: jax.Array) -> Any:
            table, prompts = jnp.asarray(workload.prompt_table), jnp.asarray(workload.prompts)
            texts = oneformer.encode_text(params, table, prompts, config=config)
            return forward(params, images, task, config=config), texts

        images, task = jnp.asarray(workload.images), jnp.asarray(workload.task)
        return 3 * _flops(jax.jit(network), self._state.params, images, task)


class Attention(ThisProject):
    """One deformable-attention layer without its projections: sums, and gradients of values, locations, weights."""

    def __init__(self, workload: AttentionWorkload) -> None:
        super().__init__()
        self._arrays = [jnp.asarray(x) for x in workload.arrays()]

        def both(value: jax.Array, locations: jax.Array, weights: jax.Array, cotangent: jax.Array) -> Any:
            with using(OneFormerConfig().on(make_mesh(1)).ops):
                sums, pullback = jax.vjp(
                    lambda value, *samples: deformable_attention(value, workload.shapes, *samples),
                    value,
                    locations,
                    weights,
                )
                return sums, *pullback(cotangent)

        self._both = jax.jit(both)

    def run(self) -> None:
        jax.block_until_ready(self._both(*self._arrays))

    def outputs(self) -> list[np.ndarray]:
        return [np.asarray(x) for x in self._both(*self._arrays)]
