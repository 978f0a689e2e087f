"""The training step: no hidden transfers, no dependence on the device, nothing compiled twice, NaN left out."""

import dataclasses
import math
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiers import tier
from transfers import explicit_transfers

from oneformer_jax.data.batch import Batch
from oneformer_jax.data.task_text import prompt_table, task_tokens
from oneformer_jax.losses.criterion import Objective, OneFormerObjective
from oneformer_jax.losses.matching import CriterionConfig, Pairs
from oneformer_jax.models import oneformer
from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.config import (
    OneFormerConfig,
    PixelDecoderConfig,
    TextEncoderConfig,
    TransformerConfig,
)
from oneformer_jax.models.predictions import TrainingOutputs
from oneformer_jax.training.optimizer import OptimizerConfig, ScheduleConfig, make_optimizer
from oneformer_jax.training.sharding import make_mesh, put_replicated
from oneformer_jax.training.step import LossScale, StepInputs, StepSettings, TrainState, TrainStep

pytestmark = [pytest.mark.slow, pytest.mark.long]

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


class MostProbableClass:
    """An objective of somebody else's: the first query of the last layer predicts the class of the first segment, and
    all pairs cost the same."""

    def normalisers(self, segment_classes: tuple[jax.Array, ...], num_queries: int) -> jax.Array:
        return jnp.float32(sum(map(len, segment_classes)))

    def costs(self, outputs: TrainingOutputs, batch: Batch, key: jax.Array) -> jax.Array:
        shape = outputs.layers.class_logits.shape
        return jnp.zeros((1, *shape[1:3], batch.segment_class.shape[1]))

    def loss(
        self, outputs: TrainingOutputs, batch: Batch, pairs: Pairs, normalisers: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits = outputs.layers.class_logits[-1, :, 0]
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch.segment_class[:, 0])
        return jnp.sum(loss) / normalisers, {"pairs": jnp.sum(pairs.valid.astype(jnp.float32))}


SCHEDULE = ScheduleConfig(1e-3, warmup_iters=2, warmup_factor=0.5).build(total_steps=20, steps_per_epoch=20)


@cache  # compiles once for all tests
def step_of(
    num_devices: int,
    config: OneFormerConfig = CONFIG,
    *,
    contrastive_weight: float = 0.5,
    uncertain_points: float = 0.75,
    frozen: frozenset[str] = frozenset(),
    precision: str = "32",
    objective: Objective | None = None,
) -> tuple[TrainStep, optax.GradientTransformation]:
    optimizer = make_optimizer(OptimizerConfig(), SCHEDULE, frozen=frozen)
    inputs = StepInputs((120.0,) * 3, (60.0,) * 3, task_tokens(0, 77), prompt_table(("disk", "square", "ring")), 6)
    criterion = CriterionConfig(
        num_points=64, contrastive_weight=contrastive_weight, importance_sample_ratio=uncertain_points
    )
    objective = objective or OneFormerObjective(criterion)
    settings = StepSettings(seed=5, frozen=frozen, precision=precision, average_decay=0.5)
    step = TrainStep(config, objective, optimizer, SCHEDULE, inputs, settings, make_mesh(num_devices))
    return step, optimizer


def start(optimizer: optax.GradientTransformation, num_devices: int = 1) -> TrainState:
    params = oneformer.init(CONFIG, jax.random.key(1))
    return put_replicated(TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params)), make_mesh(num_devices))


class Steps(NamedTuple):
    """The last state, and scalars of every step."""

    state: TrainState
    losses: list[float]
    norms: list[float]
    rates: list[float]


def run_steps(num_steps: int, num_devices: int, precision: str = "32") -> Steps:
    step, optimizer = step_of(num_devices, precision=precision)
    state = start(optimizer, num_devices)
    losses, norms, rates = [], [], []
    for i in range(num_steps):
        batch = batch_of(4, first_sample=4 * i)
        with explicit_transfers():
            state, scalars = step(state, batch)
        losses.append(float(jax.device_get(scalars["loss"])))
        norms.append(float(jax.device_get(scalars["gradient_norm"])))
        rates.append(float(jax.device_get(scalars["lr"])))
    return Steps(state, losses, norms, rates)


@pytest.fixture(scope="module")
def full() -> Steps:
    """Twelve steps in float32."""
    return run_steps(12, num_devices=1)


@pytest.mark.tao(1, 4)
def test_the_loss_falls_the_rate_follows_its_schedule_and_every_part_learns(full: Steps) -> None:
    before = oneformer.init(CONFIG, jax.random.key(1))
    state, losses, _, rates = full
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert int(state.step) == 12
    warm = [0.5, 0.75, *[1.0] * 10]
    assert rates == pytest.approx([1e-3 * w * (1 - t / 21) ** 0.9 for t, w in enumerate(warm)], rel=1e-5)
    for name, part in before.items():
        changes = [
            float(jnp.abs(a - b).max())
            for a, b in zip(jax.tree.leaves(part), jax.tree.leaves(state.params[name]), strict=True)
        ]
        assert max(changes) > 0, f"{name} did not learn"


STILL = dataclasses.replace(
    CONFIG,
    backbone=dataclasses.replace(CONFIG.backbone, drop_path_rate=0.0),
    pixel_decoder=dataclasses.replace(CONFIG.pixel_decoder, dropout=0.0),
    transformer=dataclasses.replace(CONFIG.transformer, dropout=0.0),
)


@pytest.mark.again
@pytest.mark.tao(2, 5)
def test_accumulated_batches_equal_one_large_batch() -> None:
    """With other numbers of segments in each: but for dropout and the contrastive loss nothing tells them apart.

    The last bit decides which points are the uncertain ones, and only optimised programs agree on it.
    """
    whole = batch_of(4)
    whole.segment_class[0, 1] = -1
    whole.segment_index[0][whole.segment_index[0] == 1] = -1
    parts = [jax.tree.map(lambda x, i=i: x[2 * i : 2 * i + 2], whole) for i in range(2)]
    uncertain_points = 0.75 if tier() == "prove" else 0.0
    step, optimizer = step_of(1, STILL, contrastive_weight=0.0, uncertain_points=uncertain_points)
    once, scalars = step(start(optimizer), whole)
    fresh = start(optimizer)
    with explicit_transfers():
        twice, sums = step(fresh, *parts)
    assert int(twice.step) == 1
    for name in ("loss", "loss_ce", "loss_mask", "loss_dice", "gradient_norm"):
        np.testing.assert_allclose(sums[name], scalars[name], rtol=1e-5, err_msg=name)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(optax.tree.get(once.opt_state, "mu")))
    for a, b in zip(*(jax.tree.leaves(optax.tree.get(s.opt_state, "mu")) for s in (once, twice)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * largest)
    # The contrastive loss is the mean of the batches' own.
    alone = [float(step(start(optimizer), part)[1]["loss_contrastive"]) for part in parts]
    np.testing.assert_allclose(sums["loss_contrastive"], np.mean(alone), rtol=1e-5)


@pytest.mark.prove  # `make test`: float16 below, and bfloat16 in models/test_precision.py
@pytest.mark.tao(6)
def test_products_in_bfloat16_train_float32_parameters_to_nearly_the_same(full: Steps) -> None:
    state, losses, norms, _ = run_steps(12, num_devices=1, precision="bf16-mixed")
    kept = jax.tree.leaves((state.params, optax.tree.get(state.opt_state, "mu")))
    assert {leaf.dtype for leaf in kept} == {jnp.dtype(jnp.float32)}
    assert losses != full.losses
    np.testing.assert_allclose(norms[0], full.norms[0], rtol=0.03)
    np.testing.assert_allclose(losses, full.losses, rtol=0.05)


# A smaller program, where only the precision is tried.
TRIED = None if tier() == "prove" else MostProbableClass()


def half_start(scale: float) -> TrainState:
    """The start of a float16 training that keeps an average."""
    fresh = start(step_of(1, precision="16-mixed", objective=TRIED)[1])
    loss_scale = LossScale(jnp.asarray(scale, jnp.float32), jnp.asarray(7, jnp.int32))
    return fresh._replace(loss_scale=loss_scale, average=jax.tree.map(jnp.copy, fresh.params))


@pytest.mark.again  # with OneFormer's own losses
@pytest.mark.tao(6)
def test_a_float16_step_has_the_gradients_of_the_unscaled_loss() -> None:
    """Those of the first step are in AdamW's first moment. They are those of a step with another scale, and in `make
    prove` those of float32; both begin with the same dropout and points."""
    half, _ = step_of(1, precision="16-mixed", objective=TRIED)
    fresh = half_start(2.0**10)
    before = jax.device_get(fresh.params)
    if tier() == "prove":
        full, optimizer = step_of(1)
        reference, expected = full(start(optimizer), batch_of(4))
    else:
        reference, expected = half(half_start(2.0**4), batch_of(4))
    with explicit_transfers():
        after, found = half(fresh, batch_of(4))
    assert float(found["skipped"]) == 0
    assert float(found["loss_scale"]) == 2.0**10
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=2e-3)
    np.testing.assert_allclose(found["gradient_norm"], expected["gradient_norm"], rtol=5e-3)
    moments = [optax.tree.get(s.opt_state, "mu") for s in (after, reference)]
    difference = optax.tree.norm(jax.tree.map(jnp.subtract, *moments))
    assert float(difference) < 0.02 * float(optax.tree.norm(moments[1]))
    # The average moved by nine tenths of what the parameters did: of a decay of 0.5 the first update keeps a tenth.
    for was, now, mean in zip(*map(jax.tree.leaves, (before, after.params, after.average)), strict=True):
        np.testing.assert_allclose(mean, was + 0.9 * (now - was), rtol=1e-4, atol=1e-6)


@pytest.mark.again
def test_an_overflow_halves_the_scale_and_leaves_all_else() -> None:
    """A scale beyond what float16 holds: the loss is finite, and a smaller scale will do."""
    step, _ = step_of(1, precision="16-mixed", objective=TRIED)
    fresh = half_start(2.0**100)
    kept = jax.device_get((fresh.params, fresh.opt_state, fresh.average))
    after, scalars = step(fresh, batch_of(4))
    assert [float(scalars[name]) for name in ("skipped", "not_finite")] == [1, 0]
    assert after.loss_scale is not None
    assert (float(after.loss_scale.value), int(after.loss_scale.good_steps)) == (2.0**99, 0)
    assert int(after.step) == 1
    before = jax.device_get(after.params)
    jax.tree.map(np.testing.assert_array_equal, (before, after.opt_state, after.average), kept)
    # The next update is applied at the rate that is reported, which is the second of the schedule.
    second, scalars = step(after._replace(loss_scale=half_start(2.0**10).loss_scale), batch_of(4))
    assert float(scalars["lr"]) == pytest.approx(float(SCHEDULE(1)))
    bias = (part["predictor"]["class_embed"]["bias"] for part in (second.params, before))
    assert float(jnp.abs(jnp.subtract(*bias)).max()) == pytest.approx(float(SCHEDULE(1)), rel=0.02)  # and some decay


def test_an_update_that_is_not_finite_is_left_out() -> None:
    step, optimizer = step_of(1)
    state = start(optimizer)
    state.params["predictor"] = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params["predictor"])
    kept = jax.device_get(state.params["backbone"])
    state, scalars = step(state, batch_of(4))
    assert float(scalars["skipped"]) == 1.0
    assert int(state.step) == 1
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(state.params["backbone"]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_objective_and_another_optimizer_train() -> None:
    """Each is an argument of the step; the loss is then the mean over the images of both batches."""
    optimizer = optax.sgd(0.05, momentum=0.9)
    inputs = StepInputs((120.0,) * 3, (60.0,) * 3, task_tokens(0, 77), prompt_table(("disk", "square", "ring")), 6)
    schedule, settings = optax.constant_schedule(0.05), StepSettings(seed=5)
    step = TrainStep(CONFIG, MostProbableClass(), optimizer, schedule, inputs, settings, make_mesh(1))
    state, losses = start(optimizer), []
    for i in range(6):
        batches = [batch_of(4, first_sample=4 * i), batch_of(2, first_sample=4 * i)]
        with explicit_transfers():
            state, scalars = step(state, *batches)
        values = jax.device_get(scalars)
        losses.append(float(values["loss"]))
        assert values["pairs"] == 6 + 3  # segments of both batches, in the one layer that has costs
        assert values["lr"] == np.float32(0.05)
    assert losses[0] == pytest.approx(math.log(4), rel=0.5)
    assert losses[-1] < 0.5 * losses[0]


IN_A_FRESH_PROCESS = """
import sys
sys.path[:0] = {folders!r}
import jax
from jax._src import monitoring
events = []
monitoring.register_event_listener(lambda name, **_: events.append(name.rpartition("/")[2]))
from test_step import run_steps
losses = run_steps({steps}, num_devices={devices}).losses
print("RESULT", events.count("cache_hits"), events.count("cache_misses"), *losses)
"""


class Start(NamedTuple):
    """How many programs a process has read and compiled, and the losses of its steps."""

    read: int
    compiled: int
    losses: list[float]


def fresh_process(*, devices: int, steps: int) -> Start:
    script = IN_A_FRESH_PROCESS.format(folders=list(map(str, Path(__file__).parents[:2])), steps=steps, devices=devices)
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    result = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    values = next(line for line in result.stdout.splitlines() if line.startswith("RESULT")).split()[1:]
    return Start(int(values[0]), int(values[1]), [float(value) for value in values[2:]])


def test_the_second_start_compiles_nothing(full: Steps) -> None:
    """The first one is this process."""
    second = fresh_process(devices=1, steps=2)
    assert second.read > 0
    assert second.compiled == 0
    assert second.losses == full.losses[:2]


@pytest.mark.prove  # `make test`: two processes, each with a device, in e2e/test_several_processes.py
def test_two_devices_train_like_one(full: Steps) -> None:
    assert fresh_process(devices=2, steps=3).losses == pytest.approx(full.losses[:3], rel=1e-3)
