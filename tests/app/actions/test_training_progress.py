"""What a training shows, on a terminal and where there is none."""

import io
import time

import pytest

from oneformer_jax.app.actions.train.report import TrainingProgress
from oneformer_jax.app.run import waiting as module
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.app.run.waiting import waiting
from oneformer_jax.training.logbook import Reporter


def test_a_line_each_with_the_time_that_is_left() -> None:
    screen = io.StringIO()
    progress: Reporter = TrainingProgress(Screen(file=screen, width=200), total_steps=8, start_step=4)
    with progress.bar:  # type: ignore[attr-defined]
        progress.step(5, {"loss": 1.25, "lr": 1e-4}, 3.0)
        progress.message("interrupted")
        progress.step(8, {"loss": 0.5, "lr": 0.0}, 2.5)
    assert screen.getvalue().splitlines() == [
        "step 5/8  loss 1.250  lr 1.00e-04  3.0 images/s",
        "interrupted",
        "step 8/8  loss 0.500  lr 0.00e+00  2.5 images/s  ETA 0:00:00",
    ]


def test_until_the_first_step_is_done_lines_say_what_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SOON", 0.01)
    monkeypatch.setattr(module, "EVERY", 0.01)
    screen = io.StringIO()
    progress = TrainingProgress(Screen(file=screen, width=200), total_steps=8, start_step=0)
    with progress.first_step:
        deadline = time.monotonic() + 10
        while screen.getvalue().count("\n") < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        progress.step(1, {"loss": 1.25, "lr": 1e-4}, 3.0)
        said = screen.getvalue()
        time.sleep(0.05)
        assert screen.getvalue() == said
    assert said.startswith("compiling the first step: 0:00:00\ncompiling the first step: 0:00:00\n")
    assert said.endswith("step 1/8  loss 1.250  lr 1.00e-04  3.0 images/s\n")


def test_a_bar_and_its_numbers_fit_into_a_terminal_of_80_columns() -> None:
    screen = io.StringIO()
    console = Screen(file=screen, width=80, force_terminal=True, color_system=None)
    progress = TrainingProgress(console, total_steps=20000, start_step=0)
    with progress.bar:
        progress.step(1010, {"loss": 12.25, "lr": 1e-4}, 13.0)
        time.sleep(0.01)
        progress.step(1011, {"loss": 12.125, "lr": 1e-4}, 13.0)
    last = screen.getvalue().splitlines()[-2]
    assert "1011/20000" in last
    assert "13.0 images/s  ETA 0:" in last
    assert "…" not in last


def test_a_validation_shows_its_images_below_the_bar() -> None:
    screen = io.StringIO()
    console = Screen(file=screen, width=120, force_terminal=True, color_system=None)
    progress = TrainingProgress(console, total_steps=10, start_step=0)
    with progress.bar, waiting("validating", console, 7) as count:
        count(3)
        time.sleep(0.6)  # the bar is drawn twice a second
    assert "validating" in screen.getvalue()
    assert "3/7" in screen.getvalue()
