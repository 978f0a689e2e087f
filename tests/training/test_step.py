"""The training step: no hidden transfers, no dependence on the device, nothing compiled twice, NaN left out."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from oneformer_jax.data.batch import Batch
from oneformer_jax.data.task_text import prompt_table, task_tokens
from oneformer_jax.losses.config import CriterionConfig
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import (
    OneFormerConfig,
    PixelDecoderConfig,
    SwinConfig,
    TextEncoderConfig,
    TransformerConfig,
)
from oneformer_jax.training.optimizer import OptimizerConfig, make_optimizer
from oneformer_jax.training.sharding import make_mesh, put_replicated
from oneformer_jax.training.step import StepInputs, TrainState, make_train_step

CONFIG = OneFormerConfig(
    num_classes=3,
    backbone=SwinConfig(
        embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=4, mlp_ratio=2.0, drop_path_rate=0.1
    ),
    pixel_decoder=PixelDecoderConfig(conv_dim=32, mask_dim=32, num_layers=1, num_heads=2, dim_feedforward=32),
    transformer=TransformerConfig(
        hidden_dim=32, num_queries=6, num_heads=2, dim_feedforward=32, dec_layers=2, class_dec_layers=1
    ),
    text_encoder=TextEncoderConfig(width=64, num_layers=1, vocab_size=49408, n_ctx=0, proj_num_layers=1),
)


def batch_of(size: int, first_sample: int = 0) -> Batch:
    """Images whose left half is class 0 and whose right half is class 1 or nothing."""
    rng = np.random.default_rng(first_sample)
    index = np.full((size, 1, 64, 64), -1, np.int16)
    index[:, :, :, :32] = 0
    classes = np.full((size, 8), -1, np.int32)
    classes[:, 0] = 0
    for b in range(0, size, 2):
        index[b, :, :, 32:], classes[b, 1] = 1, 1
    return Batch(
        images=rng.integers(0, 255, (size, 64, 64, 3), dtype=np.uint8),
        segment_index=index,
        segment_class=classes,
        segment_plane=np.zeros((size, 8), np.int32),
        task=np.arange(size, dtype=np.int32) % 3,
        prompts=rng.integers(0, 6, (size, 6), dtype=np.int32),
        sample=np.arange(first_sample, first_sample + size, dtype=np.int32),
    )


def run_steps(num_steps: int, num_devices: int, learning_rate: float = 1e-3) -> tuple[TrainState, list[float]]:
    mesh = make_mesh(num_devices)
    schedule = optax.constant_schedule(learning_rate)
    optimizer = make_optimizer(OptimizerConfig(), schedule)
    inputs = StepInputs((120.0,) * 3, (60.0,) * 3, task_tokens(0, 77), prompt_table(("disk", "square", "ring")))
    step = make_train_step(CONFIG, CriterionConfig(num_points=64), optimizer, schedule, inputs, mesh=mesh, seed=5)
    params = oneformer.init(CONFIG, jax.random.key(1))
    state = put_replicated(TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params)), mesh)
    losses = []
    for i in range(num_steps):
        batch = batch_of(4, first_sample=4 * i)
        with jax.transfer_guard("disallow"):
            state, scalars = step(state, batch)
        losses.append(float(jax.device_get(scalars["loss"])))
    return state, losses


def test_the_loss_falls_and_every_part_of_the_model_learns() -> None:
    before = oneformer.init(CONFIG, jax.random.key(1))
    state, losses = run_steps(12, num_devices=1)
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert int(state.step) == 12
    for name, part in before.items():
        changes = [
            float(jnp.abs(a - b).max())
            for a, b in zip(jax.tree.leaves(part), jax.tree.leaves(state.params[name]), strict=True)
        ]
        assert max(changes) > 0, f"{name} did not learn"


def test_an_update_that_is_not_finite_is_left_out() -> None:
    mesh = make_mesh(1)
    schedule = optax.constant_schedule(1e-3)
    optimizer = make_optimizer(OptimizerConfig(), schedule)
    inputs = StepInputs((0.0,) * 3, (1.0,) * 3, task_tokens(0, 77), prompt_table(("disk", "square", "ring")))
    step = make_train_step(CONFIG, CriterionConfig(num_points=64), optimizer, schedule, inputs, mesh=mesh, seed=5)
    params = oneformer.init(CONFIG, jax.random.key(1))
    params["predictor"] = jax.tree.map(lambda leaf: leaf * jnp.nan, params["predictor"])
    state = put_replicated(TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params)), mesh)
    kept = jax.device_get(params["backbone"])
    state, scalars = step(state, batch_of(4))
    assert float(scalars["skipped"]) == 1.0
    assert int(state.step) == 1
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(state.params["backbone"]), strict=True):
        np.testing.assert_array_equal(a, b)


IN_A_FRESH_PROCESS = """
import sys
sys.path.insert(0, {tests!r})
import jax
jax.config.update("jax_compilation_cache_dir", {cache!r})
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
from jax._src import monitoring
misses = []
monitoring.register_event_listener(lambda name, **_: misses.append(name) if name.endswith("cache_misses") else None)
from test_step import run_steps
_, losses = run_steps({steps}, num_devices={devices})
print("RESULT", len(misses), *losses)
"""


def fresh_process(cache: Path, *, devices: int, steps: int) -> tuple[int, list[float]]:
    script = IN_A_FRESH_PROCESS.format(tests=str(Path(__file__).parent), cache=str(cache), steps=steps, devices=devices)
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    result = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    values = next(line for line in result.stdout.splitlines() if line.startswith("RESULT")).split()[1:]
    return int(values[0]), [float(value) for value in values[1:]]


def test_the_second_start_compiles_nothing(tmp_path: Path) -> None:
    first, losses = fresh_process(tmp_path, devices=1, steps=2)
    second, again = fresh_process(tmp_path, devices=1, steps=2)
    assert first > 0
    assert second == 0
    assert again == losses


def test_two_devices_train_like_one(tmp_path: Path) -> None:
    _, one = fresh_process(tmp_path, devices=1, steps=3)
    _, two = fresh_process(tmp_path, devices=2, steps=3)
    assert two == pytest.approx(one, rel=1e-3)
