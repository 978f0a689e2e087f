"""The memory that is told for a training step, against what XLA plans and what is alive in a step that runs."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneformer_jax.app.actions.train import report
from oneformer_jax.app.actions.train.report import explaining_out_of_memory, refuse_what_cannot_fit, what_to_change
from oneformer_jax.app.settings.training import pipeline_settings, training_length, training_recipe
from oneformer_jax.app.spec import Spec
from oneformer_jax.checkpoints.contents import bytes_of
from oneformer_jax.data.batch import Batch
from oneformer_jax.data.datasets.files import DatasetFiles
from oneformer_jax.data.geometry import EvaluationPolicy
from oneformer_jax.devices import DeviceChoice
from oneformer_jax.errors import OneFormerError
from oneformer_jax.losses.criterion import OneFormerObjective
from oneformer_jax.losses.matching import assign, pair_slots
from oneformer_jax.models import oneformer
from oneformer_jax.postprocess.results import Thresholds
from oneformer_jax.training.run import Recipe, TrainingRun
from oneformer_jax.training.sharding import make_mesh
from oneformer_jax.training.step import TrainState, TrainStep
from oneformer_jax.training.step_memory import StepMemory, least_memory, training_memory
from oneformer_jax.training.step_programs import stand_in_step

SPEC = """
model:
  backbone:
    swin: {embed_dim: 16, depths: [1, 1, 1, 1], num_heads: [1, 1, 2, 2], window_size: 4, mlp_ratio: 2.0}
  sem_seg_head: {num_classes: 3, convs_dim: 32, mask_dim: 32, transformer_enc_layers: 1}
  one_former:
    {hidden_dim: 32, nheads: 2, num_object_queries: 12, dim_feedforward: 32, dec_layers: 2, class_dec_layers: 1,
      train_num_points: 64}
  text_encoder: {width: 32, num_layers: 1, n_ctx: 0, proj_num_layers: 1, vocab_size: 49408}
"""
CASES: dict[str, tuple[tuple[int, int, int], list[str]]] = {
    "float32": ((2, 64, 96), []),
    "bfloat16, remat, accumulated, averaged": (
        (1, 128, 128),
        [
            "train.precision=bf16",
            "train.accumulate_grad_batches=2",
            "train.ema_decay=0.9",
            "train.remat=dots",
        ],
    ),
}


def alive() -> int:
    """Bytes of all arrays of JAX that there are, buffers that are shared counted once."""
    return sum({array.unsafe_buffer_pointer(): array.nbytes for array in jax.live_arrays()}.values())


class Watch:
    """Runs compiled programs, and notes the most that was in use while one ran."""

    def __init__(self) -> None:
        self.before, self.most = alive(), 0

    def run(self, program: Any, *arguments: Any) -> Any:
        held = alive() - self.before
        compiled = program.lower(*arguments).compile()
        plan = compiled.memory_analysis()
        besides = plan.temp_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
        self.most = max(self.most, held + besides)
        return compiled(*arguments)


def most_in_use(recipe: Recipe, size: tuple[int, int, int], batches: int) -> int:
    """Of a step with 12 segments in an image, made program by program as `TrainStep` does."""
    watch = Watch()
    step, shapes = stand_in_step(recipe)
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    gradients, loss = None, jnp.zeros(())
    for _ in range(batches):
        gradients, loss = one_batch(watch, step, state, batch_of(size), gradients)
    watch.run(step.update, state, gradients, loss)
    return watch.most


def batch_of(size: tuple[int, int, int]) -> Batch:
    count, height, width = size
    maps = np.arange(height * width).reshape(1, 1, height, width) % 12
    table = np.full((count, 12), -1, np.int32)
    table[:, :12] = np.arange(12) % 3
    return Batch(
        images=np.zeros((count, height, width, 3), np.uint8),
        segment_index=np.broadcast_to(maps, (count, 1, height, width)).astype(np.int16),
        segment_class=table,
        segment_plane=np.zeros((count, 12), np.int32),
        task=np.zeros(count, np.int32),
        prompts=np.zeros((count, 12), np.int32),
        sample=np.arange(count, dtype=np.int32),
    )


def one_batch(watch: Watch, step: TrainStep, state: TrainState, host: Batch, summed: Any) -> tuple[Any, Any]:
    batch = jax.tree.map(jnp.asarray, host)
    outputs, costs, num_segments, pullback = watch.run(step.forward, state.params, state.step, batch)
    counts = jax.device_get(num_segments)
    pairs = assign(jax.device_get(costs), counts, num_groups=1, slots=pair_slots(counts, 1))
    over = OneFormerObjective().normalisers([batch.segment_class], 12)
    parts, cotangents = watch.run(step.losses, outputs, state.step, batch, pairs, over, state.loss_scale)
    gradients = watch.run(step.backward, state.params, pullback, cotangents)
    if summed is not None:
        gradients = jax.tree.map(jnp.add, summed, gradients)
    return gradients, parts["loss"]


@pytest.mark.prove  # `make test`: what is made of it, below, and in test_inspect.py what it says of the drawn shapes
@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_what_a_step_needs(spec_of: Any, case: str) -> None:
    (batch, *size), keys = CASES[case]
    spec = spec_of(*keys, text=SPEC)
    recipe, batches = training_recipe(spec), spec.train.accumulate_grad_batches
    needed = training_memory(recipe, batch, (size[0], size[1]), batches)
    assert needed.total == pytest.approx(most_in_use(recipe, (batch, size[0], size[1]), batches), rel=0.15)
    shapes = oneformer.shapes(recipe.model)
    assert needed.parts["parameters"] == bytes_of(shapes)
    assert needed.parts.get("average", 0) == (bytes_of(shapes) if recipe.step.average_decay else 0)


NEEDED = StepMemory(
    "the backward pass",
    {
        "parameters": 4 << 20,
        "optimizer": 8 << 20,
        "gradients": 4 << 20,
        "batch": 2 << 20,
        "kept for the backward pass": 100 << 20,
        "working memory": 30 << 20,
    },
    None,
)


def run_of(spec: Spec) -> TrainingRun:
    """A training of the spec, whose data is never opened."""
    return TrainingRun(
        Path(),
        training_recipe(spec),
        DatasetFiles("train"),
        pipeline_settings(spec),
        DeviceChoice(),
        EvaluationPolicy(),
        Thresholds(),
        training_length(spec.train),
    )


def out_of_memory() -> None:
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.\nmore")


def test_who_runs_out_of_memory_is_told_what_a_step_needs_and_what_to_change(
    spec_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "training_memory", lambda *_: NEEDED)
    settings = run_of(spec_of("dataset.train.batch_size=4", "train.remat=blocks"))
    with pytest.raises(OneFormerError) as caught, explaining_out_of_memory(settings):
        out_of_memory()
    message = str(caught.value)
    assert "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes.; a step needs about 148 MiB" in message
    assert "(parameters 4, optimizer 8, gradients 4, kept for the backward pass 100, working memory 30)" in message
    assert "train.precision=bf16-mixed, dataset.train.batch_size=2 with train.accumulate_grad_batches=2" in message
    assert "remat" not in message
    assert what_to_change(run_of(spec_of("train.precision=bf16"))).startswith("set train.remat=blocks, a ")


def test_an_estimate_that_fails_does_not_hide_that_memory_ran_out(
    spec_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "training_memory", lambda *_: out_of_memory())
    estimated = explaining_out_of_memory(run_of(spec_of()))
    with pytest.raises(OneFormerError, match=r"out of memory: .*could not be estimated"), estimated:
        out_of_memory()
    with pytest.raises(KeyError), explaining_out_of_memory(run_of(spec_of())):
        raise KeyError("another error is left alone")


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("dataset.augmentation.train_crop_size=[64,1000000000]", "images"),
        ("dataset.train.batch_size=1000000000", "images"),
        ("model.one_former.num_object_queries=2000000000", "parameters, gradients and moments"),
    ],
)
def test_what_no_machine_can_hold_is_refused_before_anything_is_compiled(spec_of: Any, key: str, what: str) -> None:
    with pytest.raises(OneFormerError, match=rf"at least [\d,.]+ GiB, most of them for {what}; there are \d"):
        refuse_what_cannot_fit(run_of(spec_of(key, text=SPEC)), make_mesh(1))
    refuse_what_cannot_fit(run_of(spec_of(text=SPEC)), make_mesh(1))


def test_a_step_of_more_images_than_the_machine_holds_is_refused(spec_of: Any) -> None:
    with pytest.raises(OneFormerError, match=r"accumulate_grad_batches: the images of one step take [\d,.]+ GiB"):
        refuse_what_cannot_fit(run_of(spec_of("train.accumulate_grad_batches=2000000000", text=SPEC)), make_mesh(1))


@pytest.mark.prove  # `make test`: the least alone, in the refusals above
def test_the_least_that_a_step_needs_is_less_than_what_it_needs(spec_of: Any) -> None:
    recipe = training_recipe(spec_of(text=SPEC))
    assert sum(least_memory(recipe, 2, (64, 96)).values()) < training_memory(recipe, 2, (64, 96)).total
