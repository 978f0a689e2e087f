"""What steps report: a line each, read one step late, and an end where nothing is finite any more."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from oneformer_jax.data.batch import Batch
from oneformer_jax.errors import OneFormerError
from oneformer_jax.training import loop
from oneformer_jax.training.logbook import Logbook
from oneformer_jax.training.loop import StepReports


class Watcher:
    """Notes what a person would be shown."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []
        self.rates: list[float] = []

    def step(self, step: int, scalars: Mapping[str, float], images_per_second: float) -> None:
        self.seen.append((step, scalars["loss"]))
        self.rates.append(images_per_second)

    def message(self, text: str) -> None:
        raise AssertionError(text)


@pytest.fixture
def logbook(tmp_path: Path) -> Iterator[Logbook]:
    with closing(Logbook(tmp_path, start_step=0, reporter=Watcher())) as logbook:
        yield logbook


@pytest.fixture
def reports(logbook: Logbook, tmp_path: Path) -> StepReports:
    return StepReports(
        logbook,
        total_steps=100,
        images_per_step=2,
        image_names=lambda samples: [f"{sample}.png" for sample in samples],
        last_checkpoint=lambda: tmp_path / "checkpoints" / "5",
    )


def add(reports: StepReports, step: int, loss: float, skipped: float) -> None:
    scalars = {"loss": jnp.float32(loss), "lr": jnp.float32(1e-3), "not_finite": jnp.float32(skipped)}
    nothing = np.zeros((2, 0), np.int32)
    sample = np.array([2 * step, 2 * step + 1], np.int32)
    maps = np.zeros((2, 1, 0, 0), np.int16)
    images = np.zeros((2, 0, 0, 3), np.uint8)
    reports.add(step, scalars, [Batch(images, maps, nothing, nothing, sample, nothing, sample)])


def logged(folder: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in map(json.loads, (folder / "log.jsonl").read_text().splitlines())]


def test_every_step_has_its_line_when_the_next_one_has_begun(reports: StepReports, tmp_path: Path) -> None:
    for step in (1, 2, 3):
        add(reports, step, 0.5 * step, 0)
        assert logged(tmp_path) == [(done, 0.5 * done) for done in range(1, step)]
    reports.read()
    assert logged(tmp_path) == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert reports.mean_loss() == 1.0
    assert math.isnan(reports.mean_loss())


def test_ten_steps_in_a_row_without_a_finite_gradient_end_the_run(reports: StepReports, tmp_path: Path) -> None:
    for step in range(1, 10):
        add(reports, step, 1.0, 1)
    add(reports, 10, 1.0, 0)  # one that is finite starts the count anew
    for step in range(11, 21):
        add(reports, step, math.nan if step > 15 else 1.0, 1)
    with pytest.raises(OneFormerError) as caught:
        reports.read()
    message = str(caught.value)
    assert "the loss was not finite at 10 steps in a row (11 to 20)" in message
    assert "images of step 20: 40.png, 41.png\n" in message
    assert f"the last good checkpoint: {tmp_path}/checkpoints/5" in message
    assert len(logged(tmp_path)) == 20


def test_the_last_step_is_shown_however_soon_it_comes(tmp_path: Path) -> None:
    watcher = Watcher()
    with closing(Logbook(tmp_path, start_step=0, reporter=watcher)) as logbook:
        reports = StepReports(
            logbook, total_steps=3, images_per_step=2, image_names=lambda _: [], last_checkpoint=lambda: None
        )
        for step in (1, 2, 3):
            add(reports, step, 0.5 * step, 0)
        reports.read()
    assert watcher.seen == [(3, 1.5)]


def test_the_rate_of_the_last_step_is_that_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images a step: five steps of two seconds, then one of four, which alone would be half as fast."""
    now = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    watcher = Watcher()
    with closing(Logbook(tmp_path, start_step=0, reporter=watcher)) as logbook:
        reports = StepReports(
            logbook, total_steps=6, images_per_step=2, image_names=lambda _: [], last_checkpoint=lambda: None
        )
        for step, seconds in enumerate((2, 2, 2, 2, 2, 4), start=1):
            add(reports, step, 1.0, 0)
            now[0] += seconds
            reports.read()
            reports.restart_clock() if step == 5 else None  # as after a validation
    assert watcher.seen == [(5, 1.0), (6, 1.0)]
    assert watcher.rates == [pytest.approx(10 / 10), pytest.approx(12 / 14)]


def test_a_resumed_log_has_no_step_twice(reports: StepReports, tmp_path: Path) -> None:
    for step in range(1, 6):
        add(reports, step, float(step), 0)
    reports.read()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 6, "kind": "tr')  # killed while it wrote
    again = Logbook(tmp_path, start_step=3, reporter=Watcher())
    again.train(4, {"loss": 40.0, "lr": 1e-3}, None)
    again.close()
    assert logged(tmp_path) == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]
