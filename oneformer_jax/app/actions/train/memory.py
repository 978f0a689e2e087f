"""What a step of a spec's training needs, before it runs or after memory has run out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from oneformer_jax.app.run.failures import explained, is_out_of_memory
from oneformer_jax.app.settings import training as configure
from oneformer_jax.app.settings.model import model_config
from oneformer_jax.app.spec import Spec
from oneformer_jax.data.batch import Batch
from oneformer_jax.data.geometry import Size
from oneformer_jax.data.task_text import task_tokens
from oneformer_jax.errors import OneFormerError
from oneformer_jax.losses.assignment import BLOCK, pair_slots
from oneformer_jax.losses.objective import OneFormerObjective
from oneformer_jax.models import oneformer
from oneformer_jax.training.optimizer import make_optimizer
from oneformer_jax.training.precision import first_loss_scale
from oneformer_jax.training.sharding import make_mesh
from oneformer_jax.training.step import StepInputs, StepSettings, TrainState, TrainStep
from oneformer_jax.training.step_memory import StepMemory, batch_shapes, step_memory

SEGMENTS = 16
"""Of an image, where no data tells."""
_PROMPT_LENGTH = 12  # tokens of the longest prompt; names of classes are short


def training_memory(spec: Spec, batch: int, size: Size) -> StepMemory:
    """Of a step that takes `batch` images of `size` (height, width) a device, with 16 segments in each.

    Raises SpecError, OneFormerError (the backend tells nothing).
    """
    step, state = stand_in_step(spec)
    return step_memory(
        step,
        state,
        _batch(spec, batch, size),
        slots=pair_slots(np.full(batch, min(SEGMENTS, spec.model.one_former.num_object_queries)), 1),
        batches_per_step=spec.train.accumulate_grad_batches,
    )


def stand_in_step(spec: Spec) -> tuple[TrainStep, TrainState]:
    """The step of a spec on one device, with a table of prompts that say nothing, and the shapes of its state."""
    config = model_config(spec)
    shapes = oneformer.shapes(config)
    frozen = configure.frozen(spec, shapes)
    optimizer = make_optimizer(configure.optimizer_config(spec), lambda _: jnp.zeros(()), frozen=frozen)
    table = np.zeros((config.num_classes + 3, _PROMPT_LENGTH), np.int32)
    prompts_of_image = min(SEGMENTS, config.num_classes) + 1
    tokens = task_tokens(config.task_pad_id, config.task_seq_len)
    mean, std = spec.dataset.pixel_mean, spec.dataset.pixel_std
    step = TrainStep(
        config,
        OneFormerObjective(configure.criterion_config(spec)),
        optimizer,
        lambda _: jnp.zeros(()),
        StepInputs(mean, std, tokens, table, prompts_of_image),
        StepSettings(spec.train.seed, frozen, spec.train.precision, spec.train.ema_decay),
        make_mesh(1),
    )
    scale = jax.eval_shape(lambda: first_loss_scale(spec.train.precision))
    average = shapes if spec.train.ema_decay else None
    updates: Any = jax.ShapeDtypeStruct((), jnp.int32)
    return step, TrainState(updates, shapes, jax.eval_shape(optimizer.init, shapes), scale, average)


def _batch(spec: Spec, batch: int, size: Size) -> Batch:
    queries, context = spec.model.one_former.num_object_queries, spec.model.text_encoder.n_ctx
    segments = min(queries, -(-SEGMENTS // BLOCK) * BLOCK)
    return batch_shapes(batch, size, planes=1, segments=segments, prompts=queries - context)


def what_to_change(spec: Spec) -> str:
    """The keys that save memory and are not set to do so yet, those first that cost least."""
    train = spec.train
    changes = [
        "train.precision=bf16-mixed" if train.precision == "32" else "",
        "" if spec.model.backbone.swin.use_checkpoint else "model.backbone.swin.use_checkpoint=true",
        f"dataset.train.batch_size={spec.dataset.train.batch_size // 2} with "
        f"train.accumulate_grad_batches={2 * train.accumulate_grad_batches} (the same step)"
        if spec.dataset.train.batch_size > 1
        else "",
        "a smaller dataset.augmentation.train_crop_size",
    ]
    return f"set {', '.join(filter(None, changes))}"


@contextmanager
def explaining_out_of_memory(spec: Spec, estimate: Callable[[], StepMemory]) -> Iterator[None]:
    """Raises OneFormerError with the estimate of a step and with what to change where memory runs out inside."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        known = explained(error, "train")
        assert known is not None
        try:
            needed = _told(estimate())
        except Exception as failed:  # memory may not even suffice for that: what ran out comes first
            needed = f"what a step needs could not be estimated ({str(failed).splitlines()[0][:100]})"
        raise OneFormerError(f"{known.what}; {needed}", hint=what_to_change(spec)) from error


def _told(memory: StepMemory) -> str:
    parts = {
        "parameters": memory.parameters,
        "optimizer": memory.optimizer,
        "average": memory.average,
        "gradients": memory.gradients,
        "kept for the backward pass": memory.kept,
        "working memory": memory.working,
    }
    listed = ", ".join(f"{name} {size / 2**20:,.0f}" for name, size in parts.items() if size)
    return f"a step needs about {memory.total / 2**20:,.0f} MiB of each device, during {memory.moment} ({listed})"
