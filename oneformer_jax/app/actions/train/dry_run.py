"""A training that only shows that it would run: one step and one validation batch, and nothing is kept."""

import time
from collections.abc import Iterator
from itertools import islice

import jax
import numpy as np
from jaxtyping import Int16, UInt8

from oneformer_jax.app.run.execute import Run
from oneformer_jax.data.batch import Batch
from oneformer_jax.data.datasets.dataset import Dataset, EncodedRecord
from oneformer_jax.errors import OneFormerError
from oneformer_jax.training.loop import LoopSettings, Validate
from oneformer_jax.training.step import TrainState, TrainStep


class FirstRecords(Dataset):
    """The first `count` records of a data set."""

    def __init__(self, whole: Dataset, count: int) -> None:
        self.whole, self.records = whole, whole.records[:count]
        self.categories, self.where = whole.categories, whole.where
        self.parts = {next(iter(whole.parts)): range(len(self.records))}

    @property
    def planes(self) -> int:
        return self.whole.planes

    def read_segments(self, i: int) -> Int16[np.ndarray, "r h w"]:
        return self.whole.read_segments(i)

    def read_image(self, i: int) -> UInt8[np.ndarray, "h w 3"]:
        return self.whole.read_image(i)

    def encoded(self, i: int) -> EncodedRecord:
        return self.whole.encoded(i)


def dry_run(
    state: TrainState,
    step_fn: TrainStep,
    batches: Iterator[Batch],
    loop: LoopSettings,
    validate: Validate | None,
    run: Run,
) -> None:
    """Raises OneFormerError when loss or gradient of the step are not finite."""
    start = time.monotonic()
    state, scalars = step_fn(state, *islice(batches, loop.batches_per_step))
    values = {name: float(value) for name, value in jax.device_get(scalars).items()}
    if values["not_finite"]:
        raise OneFormerError(f"the first step is not finite: {values}", hint="lower train.optim.lr or check the data")
    seconds = time.monotonic() - start
    run.console.print(f"one step, compilation included: loss {values['loss']:.3f}, {seconds:.0f} s", highlight=False)
    if validate is not None:
        validate(state.trained)
    done = "one step" if validate is None else "one step and one validation batch"
    run.status.end_with(f"Dry run finished successfully: {done}, no checkpoint was written.")
    run.console.print(f"dry run: {done}; nothing was kept", highlight=False)
