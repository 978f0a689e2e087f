"""What the steps of a run report, read without waiting for the device, and what ends a run that learns nothing."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from oneformer_jax.data.batch import Batch
from oneformer_jax.errors import OneFormerError
from oneformer_jax.training.logbook import Logbook
from oneformer_jax.training.step import Scalars

REPORT_SECONDS = 10.0
MAX_NOT_FINITE_IN_A_ROW = 10

ImageNames = Callable[[Sequence[int]], list[str]]
"""The image files of samples."""


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
        rate = self._steps * self._images_per_step / max(elapsed, 1e-9) if due else None
        self._logbook.train(step, values, rate)
        if due:
            self.restart_clock()
        self._not_finite = [*self._not_finite, unread] if values["not_finite"] else []
        if len(self._not_finite) >= MAX_NOT_FINITE_IN_A_ROW:
            self._give_up(values["loss"])

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
