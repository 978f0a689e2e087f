"""How far the training of a trial has come, from the files that every training writes."""

import math
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneformer_jax.app.run.status import read_status
from oneformer_jax.app.spec.automl_keys import LOSS
from oneformer_jax.training.logbook import read_log


@dataclass(frozen=True)
class Progress:
    """`scores` by step, in the order of the steps; `epochs`: the step at which so many epochs were done."""

    scores: dict[int, float]
    epochs: dict[int, int]

    def best_until(self, step: int | None, sign: int) -> float | None:
        """The best score of all steps up to `step` (None: of all); `sign` 1: the largest."""
        scores = [score for at, score in self.scores.items() if step is None or at <= step]
        return sign * max(sign * score for score in scores) if scores else None

    def step_of_best(self, sign: int) -> int | None:
        """The first step that has the best score."""
        return max(self.scores, key=lambda step: (sign * self.scores[step], -step), default=None)


def progress(folder: Path, metric: str) -> Progress:
    """What the training in `folder` has reached, {} where it has not begun. A score that is not defined is left out."""
    epochs, losses = _epochs(folder / "status.json")
    if metric == LOSS:
        scores = losses
    else:
        validations = [record for record in read_log(folder / "log.jsonl") if record["kind"] == "validation"]
        scores = {record["step"]: record.get(metric) for record in validations}
    finite = {step: float(score) for step, score in sorted(scores.items()) if _is_finite(score)}
    return Progress(finite, epochs)


def _epochs(path: Path) -> tuple[dict[int, int], dict[int, Any]]:
    """By epoch the step that ended it, and by step the mean loss: they stand on two lines that follow each other."""
    epochs: dict[int, int] = {}
    losses: dict[int, Any] = {}
    step = None
    for line in read_status(path):
        if "epoch" in line and "step" in line:
            step = line["step"]
            epochs[line["epoch"] + 1] = step
        elif LOSS in line.get("kpi", {}) and step is not None and line["status"] == "RUNNING":
            losses[step] = line["kpi"][LOSS]
    return epochs, losses


def why_it_failed(folder: Path, code: int) -> str:
    """What ended a training, in the words of its status.json or by its exit code."""
    if code < 0:
        name = signal.Signals(-code).name
        memory = ": the system does this when memory runs out" if -code == signal.SIGKILL else ""
        return f"ended by {name}{memory}"
    lines = read_status(folder / "status.json")
    if lines and lines[-1]["status"] == "FAILURE":
        return str(lines[-1]["message"])
    return f"ended with exit code {code}"


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
