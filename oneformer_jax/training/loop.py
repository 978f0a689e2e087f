"""The training loop: batches in, checkpoints out.

The order at a boundary is a contract: log, validate, then checkpoint (which stores the metrics), then the next batch. A
checkpoint of step s holds everything after s updates, and the pipeline seeks to s on resume. It is written while the
next steps are made.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import jax
from jaxtyping import PyTree

from oneformer_jax.checkpoints.description import Description
from oneformer_jax.checkpoints.store import Checkpoints
from oneformer_jax.data.batch import Batch
from oneformer_jax.models.oneformer import Params
from oneformer_jax.training.logbook import Logbook
from oneformer_jax.training.step import TrainState, TrainStep
from oneformer_jax.training.step_reports import ImageNames, StepReports
from oneformer_jax.training.stopping import agreed_stop, ended_by, stop_requests

Validate = Callable[[Params], dict[str, float]]
"""The metrics of these parameters."""

STEPS_BEFORE_PROFILE = 3
"""They compile, and fill the queues."""


@dataclass(frozen=True)
class LoopSettings:
    """How long to train and how often to stop for what, in steps; a step takes `batches_per_step` batches.

    `validate_every` 0: never. `profile_steps` are traced by the profiler. `batch_size` counts the images of one batch
    over all devices.
    """

    total_steps: int
    steps_per_epoch: int
    validate_every: int
    checkpoint_every: int
    batch_size: int
    batches_per_step: int = 1
    profile_steps: int = 0

    @property
    def images_per_step(self) -> int:
        return self.batch_size * self.batches_per_step


def train_loop(
    state: TrainState,
    step_fn: TrainStep,
    batches: Iterator[Batch],
    settings: LoopSettings,
    *,
    validate: Validate | None,
    checkpoints: Checkpoints,
    description: Description,
    logbook: Logbook,
    on_epoch: Callable[[int, float], None],
    image_names: ImageNames,
) -> TrainState:
    """Trains from `state.step` to `settings.total_steps` and returns the last state.

    After SIGINT or SIGTERM to any of the processes all finish and save the same step, then KeyboardInterrupt or
    SystemExit is raised; the second signal is raised at once. Call it in the main thread. `on_epoch` gets the step and
    the mean loss of the epoch that ends there, the last one maybe unfinished. Raises OneFormerError when loss or
    gradient stay non-finite, CheckpointError when a checkpoint cannot be written.
    """
    step = int(jax.device_get(state.step))
    saved = step
    reports = StepReports(
        logbook,
        total_steps=settings.total_steps,
        images_per_step=settings.images_per_step,
        image_names=image_names,
        last_checkpoint=checkpoints.newest,
    )
    metrics: dict[str, float] = {}

    def save() -> None:
        nonlocal saved
        reports.read()
        now = replace(description, step=step, epoch=step // settings.steps_per_epoch, metrics=metrics)
        checkpoints.save(state.params, state.opt_state, now, loss_scale=state.loss_scale, average=state.average)
        saved = step

    profile = profiler(checkpoints.run_dir / "profile", step, settings.profile_steps)
    with stop_requests() as stop, profile as profile_before:
        while step < settings.total_steps:
            if (number := agreed_stop(stop.signal, step)) is not None:
                if step > saved:
                    metrics = {}
                    logbook.message(f"interrupted: saving step {step}")
                    save()
                checkpoints.wait()
                raise ended_by(number)
            profile_before(step, state.step)
            taken = tuple(islice(batches, settings.batches_per_step))
            with jax.transfer_guard("disallow"):
                state, scalars = step_fn(state, *taken)
            step += 1
            reports.add(step, scalars, taken)
            checkpoints.poll()
            last = step == settings.total_steps
            if validate is not None and settings.validate_every and (step % settings.validate_every == 0 or last):
                reports.read()
                metrics = validate(state.trained)
                logbook.validation(step, metrics)
                reports.restart_clock()
            if step % settings.steps_per_epoch == 0 or last:
                reports.read()
                on_epoch(step, reports.mean_loss())
            if step % settings.checkpoint_every == 0 or last or checkpoints.would_be_best(metrics):
                save()
            metrics = {}
        checkpoints.wait()
    return state


@contextmanager
def profiler(folder: Path, start: int, steps: int) -> Iterator[Callable[[int, PyTree], None]]:
    """A trace of some steps by JAX's profiler, for TensorBoard's profile tab, XProf or Perfetto: a function to call
    before each step with the updates done so far and arrays of the last one.

    It traces `steps` steps (0: none) of a training that began at `start`, or as many as there are.
    """
    first, running = start + STEPS_BEFORE_PROFILE, False

    def before(step: int, arrays: PyTree) -> None:
        nonlocal running
        if steps and step == first:
            jax.block_until_ready(arrays)
            jax.profiler.start_trace(str(folder))
            running = True
        elif running and step == first + steps:
            jax.block_until_ready(arrays)
            jax.profiler.stop_trace()
            running = False

    try:
        yield before
    finally:
        if running:
            jax.profiler.stop_trace()
