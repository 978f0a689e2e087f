"""The programs of a case, traced for GPUs that are not there: the side with JAX."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.stages import Traced

from benchmarks.gpu_program.case import Case
from benchmarks.workload import (
    BACKBONES,
    CLASSES,
    DROP_PATH,
    LEARNING_RATE,
    MAX_NORM,
    PIXEL_MEAN,
    PIXEL_STD,
    WEIGHT_DECAY,
)
from oneformer_jax.checkpoints.contents import bytes_of
from oneformer_jax.data.geometry import Geometry
from oneformer_jax.evaluation.backend import Asked
from oneformer_jax.losses.matching import CriterionConfig
from oneformer_jax.models import oneformer
from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.gpu.described import OF_A_HOST, described_h100s
from oneformer_jax.models.precision import KERNEL_DTYPES, with_kernels_in
from oneformer_jax.postprocess.results import Thresholds
from oneformer_jax.predict.on_device.decided import program, rule_inputs
from oneformer_jax.training.optimizer import OptimizerConfig, ScheduleConfig
from oneformer_jax.training.run import Recipe
from oneformer_jax.training.sharding import DATA_AXIS, batch_sharding, by_host, replicated
from oneformer_jax.training.step import StepSettings
from oneformer_jax.training.step_programs import stand_in_batch, stand_in_step, traced_programs


def gpu_mesh(devices: int) -> Mesh:
    """A mesh over so many GPUs, none of which is there."""
    return by_host(described_h100s(devices, DATA_AXIS), max(1, devices // OF_A_HOST))


def traced_parts(case: Case) -> dict[str, Traced]:
    """The programs of `case.parts`."""
    backbone = SwinConfig(**BACKBONES[case.backbone], drop_path_rate=DROP_PATH)
    mesh = gpu_mesh(case.devices)
    model = OneFormerConfig(num_classes=CLASSES, backbone=backbone).on(mesh)
    if case.purpose == "inference":
        return _inference(case, model, mesh)
    recipe = Recipe(
        replace(model, remat=case.remat).on(mesh),
        CriterionConfig(),
        OptimizerConfig(weight_decay=WEIGHT_DECAY, clip_value=MAX_NORM),
        ScheduleConfig(LEARNING_RATE),
        StepSettings(seed=0, precision=case.precision, strategy=case.strategy),
        PIXEL_MEAN,
        PIXEL_STD,
    )
    step, state = stand_in_step(recipe, mesh)
    batch = stand_in_batch(model, case.batch * case.devices, (case.size, case.size))
    return traced_programs(step, state, batch)._asdict()


def _inference(case: Case, model: OneFormerConfig, mesh: Mesh) -> dict[str, Traced]:
    def encode(params: Any, images: Any, sizes: Any) -> Any:
        return oneformer.encode(params, oneformer.normalise(images, PIXEL_MEAN, PIXEL_STD, sizes), config=model)

    def decode(params: Any, features: Any, tokens: Any) -> Any:
        return oneformer.predict(params, features, tokens, config=model)

    def split(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((case.batch * case.devices, *shape), dtype, sharding=batch_sharding(mesh))

    def whole(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh))

    params, dtype = oneformer.shapes(model), KERNEL_DTYPES[case.precision]
    params = params if dtype is None else jax.eval_shape(partial(with_kernels_in, dtype=dtype), params)
    params = jax.tree.map(whole, params)
    images, sizes = split((case.size, case.size, 3), jnp.uint8), split((2,), jnp.int32)
    encoded = jax.jit(encode).trace(params, images, sizes)
    features = jax.tree.map(lambda leaf: split(leaf.shape[1:], leaf.dtype), encoded.out_info)
    decoded = jax.jit(decode).trace(params, features, split((model.task_seq_len,), jnp.int32))
    logits = [split(leaf.shape[1:], leaf.dtype) for leaf in decoded.out_info]
    side, asked = (case.size, case.size), Asked([case.task], np.zeros(CLASSES, bool), Thresholds())
    inputs = rule_inputs([Geometry(side, side, side)], logits[1].shape[2:], asked)
    inputs = jax.tree.map(lambda leaf: split(leaf.shape[1:], leaf.dtype), inputs[case.task])
    rule = program(case.task, mesh, asked.thresholds.test_topk_per_image)
    return {"encode": encoded, "decode": decoded, case.task: rule.trace(*logits, *inputs)}


def host_bytes(case: Case, traced: dict[str, Traced]) -> tuple[int, int]:
    """What all devices get from the host in a step or a picture batch, and what they return."""
    if case.purpose == "inference":
        (_, *images), (_, _, tokens) = traced["encode"].args_info[0], traced["decode"].args_info[0]
        (_, _, *inputs), results = traced[case.task].args_info[0], traced[case.task].out_info
        results = results[0] if case.task == "instance" else results  # the other stays, see `Decided`
        return bytes_of((images, tokens, inputs)), bytes_of(results)
    (_, _, batch, pairs, _, _), _ = traced["losses"].args_info
    _, costs, counts, _ = traced["forward"].out_info
    return bytes_of((batch, pairs)), bytes_of((costs, counts))
