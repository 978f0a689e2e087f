"""What a training shows where the screen is no terminal."""

import io

from oneformer_jax.app.actions.train.report import TrainingProgress
from oneformer_jax.app.run.screen import Screen
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
