"""The training loop: batches in, checkpoints out.

The order at a boundary is a contract: log, validate, then checkpoint (which stores the metrics), then the next batch. A
checkpoint of step s holds everything after s updates and counts the images that they have seen, to which the pipeline
seeks on resume. It is written while the next steps are made. What the steps report is read without waiting for the
device. Who is asked to stop saves at once: a validation that is due or has begun is left out.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import PyTree

from oneformer_jax.checkpoints.description import Description
from oneformer_jax.checkpoints.store import Checkpoints
from oneformer_jax.data.batch import Batch
from oneformer_jax.errors import OneFormerError
from oneformer_jax.evaluation.evaluator import Stop, Stopped
from oneformer_jax.models.oneformer import Params
from oneformer_jax.stopping import ended_by, name_of, stop_requests
from oneformer_jax.training.distributed import agreed_stop
from oneformer_jax.training.logbook import Logbook
from oneformer_jax.training.step import Scalars, TrainState, TrainStep


@runtime_checkable
class Validate(Protocol):
    """The metrics of parameters. Raises `Stopped` in all processes where `stop` asked any of them."""

    def __call__(self, params: Params, stop: Stop = ...) -> dict[str, float]: ...


ImageNames = Callable[[Sequence[int]], list[str]]
"""The image files of samples."""

REPORT_SECONDS = 10.0
MAX_NOT_FINITE_IN_A_ROW = 10
STEPS_BEFORE_PROFILE = 3
"""They compile, and fill the queues."""


@dataclass(frozen=True)
class LoopSettings:
    """How long to train and how often to stop for what, in steps; a step takes `batches_per_step` batches.

    `validate_every` 0: never. `patience`: so many validations in a row that are not better than the best one end the
    training, 0: none do. `profile_steps` are traced by the profiler. `batch_size` counts the images of one batch
    over all devices.

    A step is an update, and a run counts all of its updates. One that has changed the images of a step or the length of
    an epoch is after `step` updates where these settings alone would be after `step - shift`, its `place`: schedule,
    epochs and the end of the run go by that.
    """

    planned_steps: int
    steps_per_epoch: int
    validate_every: int
    checkpoint_every: int
    batch_size: int
    batches_per_step: int = 1
    profile_steps: int = 0
    patience: int = 0
    shift: Fraction = Fraction(0)

    @property
    def images_per_step(self) -> int:
        return self.batch_size * self.batches_per_step

    @property
    def total_steps(self) -> int:
        """The last update of the run."""
        return math.ceil(self.planned_steps + self.shift)

    def place(self, step: int) -> Fraction:
        """After how many updates these settings alone would be where the run is after `step`."""
        return step - self.shift

    def is_due(self, step: int, every: int) -> bool:
        """Whether what comes every so many updates comes after `step`."""
        return self.place(step) // every > self.place(step - 1) // every

    def has_waited(self, step: int, best_step: int | None) -> bool:
        """Whether the validations after `best_step`, up to that of `step`, are as many as there is patience for."""
        if not self.patience or best_step is None:
            return False
        best, now = (self.place(s) // self.validate_every for s in (best_step, step))
        return now - best >= self.patience

    def resumed(self, step: int, epochs: Fraction) -> "LoopSettings":
        """The same for a run that has made `step` updates, in which `epochs` went by."""
        return replace(self, shift=step - epochs * self.steps_per_epoch)


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
    """Trains from `state.step` to `settings.total_steps`, or until validations have brought nothing better for so long
    that `settings` end it, and returns the last state. `description` is of its start.

    After SIGINT, SIGTERM or SIGHUP to any of the processes all finish and save the same step, then KeyboardInterrupt or
    SystemExit is raised; the second signal is raised at once. Call it in the main thread. `on_epoch` gets the step and
    the mean loss of the epoch that ends there, the last one maybe unfinished. Raises OneFormerError when loss or
    gradient stay non-finite, CheckpointError when a checkpoint cannot be written.
    """
    first = step = int(jax.device_get(state.step))
    saved = step
    reports = StepReports(
        logbook,
        total_steps=settings.total_steps,
        images_per_step=settings.images_per_step,
        image_names=image_names,
        last_checkpoint=checkpoints.newest,
    )
    metrics: dict[str, float] = {}
    stopped_by: int | None = None

    def save() -> None:
        nonlocal saved
        reports.read()
        assert description.training is not None
        epochs = settings.place(step) / settings.steps_per_epoch
        images = description.training.images + (step - first) * settings.images_per_step
        training = replace(description.training, images=images, epochs=epochs)
        now = replace(description, step=step, epoch=math.floor(epochs), metrics=metrics, training=training)
        checkpoints.save(state.params, state.opt_state, now, loss_scale=state.loss_scale, average=state.average)
        saved = step

    def answer(number: int) -> None:
        what = "the first step, which is being compiled" if step == first else "this step"
        logbook.message(f"{name_of(number)}: ending and saving after {what}; once more: ending without saving")

    profile = profiler(checkpoints.run_dir / "profile", step, settings.profile_steps)
    with stop_requests(answer) as stop, profile as profile_before:
        while step < settings.total_steps:
            if (number := agreed_stop(stop.signal, step)) is not None:
                if step > saved:
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
            if (
                validate is not None
                and settings.validate_every
                and (settings.is_due(step, settings.validate_every) or last)
            ):
                reports.read()
                try:
                    metrics = validate(state.trained, lambda: stop.signal is not None)
                except Stopped:
                    stopped_by = stop.signal or signal.SIGTERM
                    logbook.message(f"interrupted: saving step {step} without its validation")
                else:
                    logbook.validation(step, metrics)
                    reports.restart_clock()
                    if settings.has_waited(step, checkpoints.best_step) and not checkpoints.would_be_best(metrics):
                        logbook.message(f"no better {checkpoints.monitor} since step {checkpoints.best_step}: ending")
                        last = True
            if settings.is_due(step, settings.steps_per_epoch) or last:
                reports.read()
                on_epoch(step, reports.mean_loss())
            to_save = settings.is_due(step, settings.checkpoint_every) or last or checkpoints.would_be_best(metrics)
            if to_save or stopped_by is not None:
                save()
            if stopped_by is not None:
                checkpoints.wait()
                raise ended_by(stopped_by)
            if last:
                break
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
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # it enters all threads, and crashes where one is just starting or ending

    def before(step: int, arrays: PyTree) -> None:
        nonlocal running
        if steps and step == first:
            jax.block_until_ready(arrays)
            jax.profiler.start_trace(str(folder), profiler_options=options)
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


class _Step(NamedTuple):
    step: int
    scalars: Scalars
    samples: list[int]


class StepReports:
    """A line of log.jsonl for each step; every few seconds also one on the screen and a point of the curves.

    The scalars of a step are read when the next one has been started. It had to wait for their update in order to
    assign its own targets, so they are there by then and reading them stops nothing.
    """

    def __init__(
        self,
        logbook: Logbook,
        *,
        total_steps: int,
        images_per_step: int,
        image_names: ImageNames,
        last_checkpoint: Callable[[], Path | None],
    ) -> None:
        self._logbook, self._image_names, self._last_checkpoint = logbook, image_names, last_checkpoint
        self._total_steps, self._images_per_step = total_steps, images_per_step
        self._unread: _Step | None = None
        self._not_finite: list[_Step] = []
        self._losses: list[float] = []
        self._since, self._steps = time.monotonic(), 0
        self._reported = (0.0, 0)  # seconds and steps of the last report

    def add(self, step: int, scalars: Scalars, batches: Sequence[Batch]) -> None:
        """What `step`, which has been started, will return. Raises what `read` raises."""
        self.read()
        self._unread = _Step(step, scalars, [int(i) for batch in batches for i in np.asarray(batch.sample)])

    def read(self) -> None:
        """Writes what the last step returned, waiting for it where it has not ended.

        Raises OneFormerError with the files of its images when loss or gradient were not finite at the tenth step in a
        row.
        """
        if self._unread is None:
            return
        (step, scalars, _), unread, self._unread = self._unread, self._unread, None
        values = {name: float(value) for name, value in jax.device_get(scalars).items()}
        self._losses.append(values["loss"])
        self._steps += 1
        elapsed = time.monotonic() - self._since
        due = elapsed >= REPORT_SECONDS or step == self._total_steps
        self._logbook.train(step, values, self._rate(elapsed) if due else None)
        if due:
            self._reported = (elapsed, self._steps)
            self.restart_clock()
        self._not_finite = [*self._not_finite, unread] if values["not_finite"] else []
        if len(self._not_finite) >= MAX_NOT_FINITE_IN_A_ROW:
            self._give_up(values["loss"])

    def _rate(self, elapsed: float) -> float:
        """Images a second since the last report; with those of the last report where that is just over."""
        seconds, steps = self._reported if elapsed < REPORT_SECONDS else (0.0, 0)
        return (steps + self._steps) * self._images_per_step / max(seconds + elapsed, 1e-9)

    def _give_up(self, loss: float) -> None:
        first, last = self._not_finite[0], self._not_finite[-1]
        names = ", ".join(self._image_names(last.samples))
        raise OneFormerError(
            f"{'the gradient was' if math.isfinite(loss) else 'the loss was'} not finite at {len(self._not_finite)} "
            f"steps in a row ({first.step} to {last.step}), whose updates were skipped; images of step {last.step}: "
            f"{names}",
            hint="lower train.optim.lr, or check these images and their annotations; the last good checkpoint: "
            f"{self._last_checkpoint() or 'none was written yet'}",
        )

    def restart_clock(self) -> None:
        """What was done since the last report took no part of the time of the steps to come."""
        self._since, self._steps = time.monotonic(), 0

    def mean_loss(self) -> float:
        """Of the steps since the last call whose loss is finite; NaN where there is none."""
        finite = [loss for loss in self._losses if math.isfinite(loss)]
        self._losses.clear()
        return sum(finite) / len(finite) if finite else math.nan
