"""The training loop: batches in, checkpoints out.

The order at a boundary is a contract: validate, then checkpoint (which stores the metrics), then the next batch. A
checkpoint of step s holds everything after s updates, and the pipeline seeks to s on resume.
"""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import jax

from oneformer_jax.data.batch import Batch
from oneformer_jax.errors import OneFormerError
from oneformer_jax.training.checkpoints import Checkpoints, Description
from oneformer_jax.training.distributed import agreed_stop
from oneformer_jax.training.logbook import Logbook
from oneformer_jax.training.step import TrainState, TrainStep

LOG_EVERY_SECONDS = 10.0
MAX_SKIPPED_IN_A_ROW = 20

Validate = Callable[[Any], dict[str, float]]


@dataclass(frozen=True)
class LoopSettings:
    """How long to train and how often to stop for what, in steps; a step takes `batches_per_step` batches.

    `validate_every` 0: never. `batch_size` counts the images of one batch over all devices.
    """

    total_steps: int
    steps_per_epoch: int
    validate_every: int
    checkpoint_every: int
    batch_size: int
    batches_per_step: int = 1

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
) -> TrainState:
    """Trains from `state.step` to `settings.total_steps` and returns the last state.

    After SIGINT or SIGTERM to any of the processes all finish and save the same step, then KeyboardInterrupt or
    SystemExit is raised. Call it in the main thread. `on_epoch` gets the step and the mean loss of the epoch that ends
    there, the last one maybe unfinished. Raises OneFormerError when the gradients stay non-finite.
    """
    step = int(jax.device_get(state.step))
    saved = step
    losses: list[jax.Array] = []
    skipped_in_a_row = 0
    since, since_step = time.monotonic(), step
    metrics: dict[str, float] = {}

    def save() -> None:
        nonlocal saved
        now = replace(description, step=step, epoch=step // settings.steps_per_epoch, metrics=metrics)
        checkpoints.save(state.params, state.opt_state, now)
        saved = step

    with stop_requests() as stop:
        while step < settings.total_steps:
            if (number := agreed_stop(stop.signal, step)) is not None:
                if step > saved:
                    metrics = {}
                    logbook.message(f"interrupted: saving step {step}")
                    save()
                raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
            taken = tuple(islice(batches, settings.batches_per_step))
            with jax.transfer_guard("disallow"):
                state, scalars = step_fn(state, *taken)
            step += 1
            losses.append(scalars["loss"])
            last = step == settings.total_steps
            elapsed = time.monotonic() - since
            if elapsed >= LOG_EVERY_SECONDS or last:
                values = {name: float(value) for name, value in jax.device_get(scalars).items()}
                skipped_in_a_row = skipped_in_a_row + 1 if values["skipped"] else 0
                if skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
                    raise OneFormerError(
                        f"the gradients were not finite at {skipped_in_a_row} reports in a row (step {step})",
                        hint="lower train.optim.lr or check the data; the last checkpoint is unharmed",
                    )
                rate = (step - since_step) * settings.images_per_step / max(elapsed, 1e-9)
                logbook.train(step, values, rate)
                since, since_step = time.monotonic(), step
            if validate is not None and settings.validate_every and (step % settings.validate_every == 0 or last):
                metrics = validate(state.params)
                logbook.validation(step, metrics)
                since, since_step = time.monotonic(), step
            if step % settings.steps_per_epoch == 0 or last:
                on_epoch(step, _finite_mean(losses))
                losses.clear()
            if step % settings.checkpoint_every == 0 or last or checkpoints.would_be_best(metrics):
                save()
                since, since_step = time.monotonic(), step
            metrics = {}
    return state


def _finite_mean(values: list[jax.Array]) -> float:
    """NaN where no value is finite."""
    finite = [value for value in map(float, jax.device_get(values)) if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


class StopRequest:
    """The signal that asked the loop to stop, if any."""

    signal: int | None = None


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """SIGINT and SIGTERM are noted instead of raised: a step that gave its buffers away must not be cut in two.

    The second SIGINT is raised at once, for whoever will not wait for the step to end.
    """
    request = StopRequest()
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: object) -> None:
        request.signal = number
        signal.signal(signal.SIGINT, previous[signal.SIGINT])

    try:
        for number in previous:
            signal.signal(number, note)
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
