"""A training step on a GPU beside the same step on the CPU, which is the reference.

Products are float32 here, not TF32, so that little but the order of sums differs. In `make prove`, without a GPU, a
second CPU device takes its place: then only this file is shown to work.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from test_step import SCHEDULE, STILL, batch_of
from tiers import tier

from oneformer_jax.data.task_text import prompt_table, task_tokens
from oneformer_jax.losses.criterion import OneFormerObjective
from oneformer_jax.losses.matching import CriterionConfig
from oneformer_jax.models import oneformer
from oneformer_jax.models.precision import KERNEL_DTYPES
from oneformer_jax.training.optimizer import OptimizerConfig, make_optimizer
from oneformer_jax.training.sharding import put_replicated
from oneformer_jax.training.step import StepInputs, StepSettings, TrainState, TrainStep, first_loss_scale

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
STEPS = 3


@pytest.fixture(scope="module")
def gpu() -> jax.Device:
    """The device under test. `make gpu` fails where there is none: it must not pass for want of what it tests."""
    return jax.devices("gpu")[0] if tier() == "gpu" else jax.devices("cpu")[-1]


def steps(device: jax.Device, precision: str) -> tuple[TrainState, list[dict[str, float]]]:
    """The state after some steps without dropout, and the scalars of each."""
    mesh = Mesh(np.array([device]), ("data",))
    optimizer = make_optimizer(OptimizerConfig(), SCHEDULE)
    inputs = StepInputs((120.0,) * 3, (60.0,) * 3, task_tokens(0, 77), prompt_table(("disk", "square", "ring")), 6)
    objective = OneFormerObjective(CriterionConfig(num_points=64, importance_sample_ratio=0.0))
    settings = StepSettings(seed=5, precision=precision)
    step = TrainStep(STILL.on(mesh), objective, optimizer, SCHEDULE, inputs, settings, mesh)
    params = jax.device_get(oneformer.init(STILL, jax.random.key(1)))
    scale = first_loss_scale(precision)
    if scale is not None:
        scale = scale._replace(value=jnp.float32(256))  # the first ones overflow, and skip their updates
    state = TrainState(np.zeros((), np.int32), params, optimizer.init(params), scale)
    state, scalars = put_replicated(state, mesh), []
    for number in range(STEPS):
        with jax.transfer_guard("disallow"), jax.default_matmul_precision("highest"):
            state, found = step(state, batch_of(4, first_sample=4 * number))
        scalars.append({name: float(value) for name, value in jax.device_get(found).items()})
    return jax.device_get(state), scalars


@pytest.mark.parametrize(("precision", "tolerance"), [("32", 1e-3), ("bf16-mixed", 0.05), ("16-mixed", 0.02)])
def test_steps_have_the_losses_and_the_gradients_of_the_cpu(gpu: jax.Device, precision: str, tolerance: float) -> None:
    """The sum of all steps' gradients is in AdamW's first moments. Halves are compared with the CPU's float32."""
    assert precision in KERNEL_DTYPES
    here, expected = steps(gpu, precision), steps(jax.devices("cpu")[0], "32")
    for found, reference in zip(here[1], expected[1], strict=True):
        for name in ("loss", "loss_ce", "loss_mask", "loss_dice", "loss_contrastive", "gradient_norm"):
            assert found[name] == pytest.approx(reference[name], rel=tolerance), name
        assert found["skipped"] == 0
    moments = [optax.tree.get(state.opt_state, "mu") for state, _ in (here, expected)]
    difference = float(optax.tree.norm(jax.tree.map(jnp.subtract, *moments)))
    assert difference < 4 * tolerance * float(optax.tree.norm(moments[1]))


def test_a_prediction_is_that_of_the_cpu(gpu: jax.Device) -> None:
    """Logits of a batch of two sizes' worth of pixels, in float32."""
    params = oneformer.init(STILL, jax.random.key(1))
    images = np.random.default_rng(0).normal(size=(2, 96, 160, 3)).astype(np.float32)
    tokens = np.repeat(task_tokens(0, 77)[2:], 2, axis=0)

    def logits(device: jax.Device) -> list[np.ndarray]:
        placed = jax.device_put((params, images, tokens), device)
        config = STILL.on(Mesh(np.array([device]), ("data",)))

        @jax.jit
        def run(params: oneformer.Params, images: jax.Array, tokens: jax.Array) -> tuple[jax.Array, ...]:
            features = oneformer.encode(params, images, config=config)
            return tuple(oneformer.predict(params, features, tokens, config=config))

        with jax.default_matmul_precision("highest"):
            return list(jax.device_get(run(*placed)))

    for found, expected in zip(logits(gpu), logits(jax.devices("cpu")[0]), strict=True):
        # A masked-attention bit whose logit is next to zero may differ, and with it the outputs of that query.
        close = np.abs(found - expected) < 1e-3 * np.abs(expected).max()
        assert close.mean() > 0.97
