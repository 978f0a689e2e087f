"""A run that goes on with another batch size: with the images, the epochs and the schedule of the run it continues."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneformer_jax.checkpoints.description import Description, Training
from oneformer_jax.checkpoints.read import latest, load_description
from oneformer_jax.checkpoints.store import Checkpoints
from oneformer_jax.data.batch import Batch
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.drawn_shapes import CATEGORIES
from oneformer_jax.evaluation.evaluator import Stop, Stopped
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import Params
from oneformer_jax.training.logbook import SilentLogbook
from oneformer_jax.training.loop import LoopSettings, Validate, train_loop
from oneformer_jax.training.optimizer import ScheduleConfig
from oneformer_jax.training.run import Length
from oneformer_jax.training.step import TrainState, TrainStep

IMAGES = 24
SCHEDULE = ScheduleConfig(1.0, warmup_iters=0)
DESCRIPTION = Description(
    OneFormerConfig(), CATEGORIES, (0.0,) * 3, (1.0,) * 3, {}, training=Training(IMAGES, 1, "mIoU", 0, {})
)


class Images(Dataset):
    """A data set of so many images, which nobody reads."""

    planes = 1

    def __init__(self, count: int) -> None:
        self.records, self.categories, self.where, self.parts = [None] * count, CATEGORIES, "", {}


class Interrupted(Exception):
    """Ends a run before one of its batches."""


def stand_in(step: Callable[..., tuple[TrainState, dict[str, Any]]]) -> TrainStep:
    """A step that compiles nothing and does what `step` does."""
    made = type("StandIn", (TrainStep,), {"__init__": lambda self: None, "__call__": step})
    return made()


class Trained:
    """What a run in `folder` did: samples, the learning rate after so many images, the steps that ended an epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.steps, self.images, self.epochs = folder, 0, 0, Fraction(0)
        self.samples: list[int] = []
        self.rates: dict[int, float] = {}
        self.epoch_ends: list[int] = []

    def train(
        self,
        epochs: int,
        batch: int,
        *,
        accumulated: int = 1,
        stop_after: int | None = None,
        validate: Validate | None = None,
        checkpoint_every: int = 1,
        patience: int = 0,
    ) -> LoopSettings:
        """Goes on from the newest checkpoint, as `train` does, with steps that change nothing but their count."""
        loop = Length(epochs, batches_per_step=accumulated).in_steps(Images(IMAGES), batch)
        loop = replace(loop, validate_every=4, patience=patience)
        description = DESCRIPTION
        if newest := latest(self.folder):
            description = load_description(newest)
        training = description.training
        assert training is not None
        loop = loop.resumed(description.step, training.epochs)
        rate = SCHEDULE.build(loop.planned_steps, loop.steps_per_epoch, float(loop.shift))

        def batches() -> Iterator[Any]:
            for number in count():
                if number * batch == (stop_after or 10**9):
                    raise Interrupted
                first = training.images + number * batch
                yield Batch(*[np.zeros(0)] * 6, sample=np.arange(first, first + batch))

        @jax.transfer_guard("allow")
        def step(_: TrainStep, state: TrainState, *taken: Any) -> tuple[TrainState, dict[str, Any]]:
            samples = [int(sample) for batch in taken for sample in batch.sample]
            self.rates[samples[0]] = float(rate(int(state.step)))
            self.samples += samples
            scalars = dict.fromkeys(("loss", "lr", "not_finite"), jnp.zeros(()))
            return state._replace(step=state.step + 1), scalars

        state = TrainState(jnp.asarray(description.step), {"a": jnp.zeros(2)}, {"a": jnp.zeros(2)})
        with Checkpoints(self.folder, keep=0, monitor="mIoU") as checkpoints:
            state = train_loop(
                state,
                stand_in(step),
                batches(),
                replace(loop, checkpoint_every=checkpoint_every),
                validate=validate,
                checkpoints=checkpoints,
                description=description,
                logbook=SilentLogbook(),
                on_epoch=lambda step, _: self.epoch_ends.append(step),
                image_names=lambda _: [],
            )
        return loop


def described(run: Trained) -> tuple[int, int, Fraction, int]:
    """Updates, images, epochs of the newest checkpoint."""
    newest = latest(run.folder)
    assert newest is not None
    found = load_description(newest)
    assert found.training is not None
    return found.step, found.training.images, found.training.epochs, found.epoch


@pytest.mark.slow
def test_more_epochs_at_another_batch_size_are_as_many_more_passes_over_the_data(tmp_path: Path) -> None:
    """2 epochs of 24 images in twos, then 4 in fours: 12 more updates, and 4 passes in all."""
    run = Trained(tmp_path)
    run.train(2, 2)
    assert described(run) == (24, 48, 2, 2)
    loop = run.train(4, 4)
    assert described(run) == (24 + 12, 96, 4, 4)
    assert (loop.total_steps, run.epoch_ends) == (36, [12, 24, 30, 36])
    assert run.samples == list(range(96))
    # The learning rate is that of four epochs in fours after as many images.
    assert [run.rates[seen] for seen in (48, 92)] == pytest.approx([(1 - 12 / 25) ** 0.9, (1 - 23 / 25) ** 0.9])
    run.train(4, 8, accumulated=3)  # complete: not one more
    assert described(run)[:2] == (36, 96)


def test_in_the_middle_of_an_epoch_another_batch_size_goes_on_at_the_next_image(tmp_path: Path) -> None:
    """After 10 of 24 images in twos: sixes of 2 x 3, then twelves, until two epochs are over."""
    run = Trained(tmp_path)
    with pytest.raises(Interrupted):
        run.train(2, 2, stop_after=10)
    assert described(run) == (5, 10, Fraction(5, 12), 0)
    with pytest.raises(Interrupted):
        run.train(2, 3, accumulated=2, stop_after=12)
    assert described(run) == (7, 22, Fraction(11, 12), 0)
    run.train(2, 12)
    assert run.samples == list(range(22 + 36)), "the last step begins before the end, and is whole"
    assert described(run) == (10, 58, Fraction(11, 12) + Fraction(3, 2), 2)
    assert run.epoch_ends == [8, 10]
    assert run.rates[10] == pytest.approx((1 - (10 / 6) / 9) ** 0.9)
    assert run.rates[22] == pytest.approx((1 - (22 / 12) / 5) ** 0.9)


@pytest.mark.slow
def test_a_run_that_is_stopped_and_goes_on_is_one_that_was_not(tmp_path: Path) -> None:
    """Also where an epoch is no whole number of steps: 24 images in fives."""
    once, twice = Trained(tmp_path / "once"), Trained(tmp_path / "twice")
    once.train(2, 5)
    with pytest.raises(Interrupted):
        twice.train(2, 5, stop_after=35)
    twice.train(2, 5)
    for name in ("samples", "rates", "epoch_ends"):
        assert getattr(once, name) == getattr(twice, name)
    assert described(once) == described(twice) == (10, 50, 2, 2)


@pytest.mark.tao(15)
@pytest.mark.parametrize("stopped_at", [8, 12])
def test_who_is_stopped_while_validating_saves_at_once_without_its_metrics(tmp_path: Path, stopped_at: int) -> None:
    """The last step as any other: 24 images in twos."""
    run, begun = Trained(tmp_path), []

    def validate(_: Params, stop: Stop = lambda: False) -> dict[str, float]:
        assert not stop()
        begun.append(len(run.samples) // 2)
        if begun[-1] == stopped_at:
            os.kill(os.getpid(), signal.SIGTERM)
        if stop():
            raise Stopped
        return {"mIoU": 0.5}

    with pytest.raises(SystemExit) as ended:
        run.train(1, 2, validate=validate, checkpoint_every=100)
    assert ended.value.code == 143
    assert described(run)[0] == stopped_at
    newest = latest(tmp_path)
    assert newest is not None
    assert load_description(newest).metrics == {}
    assert (tmp_path / "best").resolve().name == "4"
    run.train(1, 2, validate=validate, checkpoint_every=100)
    assert described(run)[0] == 12
    assert begun == [4, 8, 12]
    assert run.epoch_ends == [12]


def test_who_waits_for_a_better_score_in_vain_ends(tmp_path: Path) -> None:
    """Validations after every fourth of 36 steps: 0.3, 0.5, 0.5, 0.4, ...; the second stays the best."""
    run, scores = Trained(tmp_path), iter([0.3, 0.5, 0.5, 0.4, 0.45, 0.6, 0.1, 0.1, 0.1])
    seen: list[int] = []

    def validate(_: Params, stop: Stop = lambda: False) -> dict[str, float]:
        seen.append(len(run.samples) // 2)
        return {"mIoU": next(scores)}

    loop = run.train(3, 2, validate=validate, checkpoint_every=100, patience=2)
    assert seen == [4, 8, 12, 16]
    assert described(run)[0] == 16
    assert run.epoch_ends == [12, 16]
    assert (tmp_path / "best").resolve().name == "8"
    assert [loop.has_waited(step, 8) for step in (8, 12, 15, 16, 20)] == [False, False, False, True, True]
    assert not loop.has_waited(16, None)
    run.train(3, 2, validate=validate, checkpoint_every=100, patience=4)  # with more patience it goes on
    assert seen == [4, 8, 12, 16, 20, 24, 28, 32, 36]
    assert (tmp_path / "best").resolve().name == "24"


@given(
    parts=st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]), st.integers(1, 30)), min_size=1, max_size=6),
    epochs=st.integers(1, 5),
)
def test_whatever_the_batch_sizes_epochs_end_after_as_many_images(parts: list[tuple[int, int]], epochs: int) -> None:
    """Sizes that divide the data set: at every step the place in the run is the share of its images that were seen."""
    step, images, progress = 0, 0, Fraction(0)
    for size, steps in [*parts, (1, epochs * IMAGES)]:
        loop = Length(epochs).in_steps(Images(IMAGES), size).resumed(step, progress)
        for _ in range(min(steps, max(0, loop.total_steps - step))):
            step, images = step + 1, images + size
            progress = loop.place(step) / loop.steps_per_epoch
            assert progress == Fraction(images, IMAGES)
            assert loop.is_due(step, loop.steps_per_epoch) == (images // IMAGES > (images - size) // IMAGES)
    assert epochs * IMAGES <= images < epochs * IMAGES + 24


def test_another_number_of_images_goes_on_in_the_same_epoch() -> None:
    """One and a half of three epochs of 24 images are one and a half of 10, and there are 8 more updates of two."""
    before = Length(3).in_steps(Images(24), 2).resumed(0, Fraction(0))
    epochs = before.place(18) / before.steps_per_epoch
    assert epochs == Fraction(3, 2)
    loop = Length(3).in_steps(Images(10), 2).resumed(18, epochs)
    assert (loop.place(18), loop.total_steps) == (Fraction(15, 2), 18 + 8)
    assert [step for step in range(19, 27) if loop.is_due(step, loop.steps_per_epoch)] == [21, 26]
