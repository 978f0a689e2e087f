"""A trial's training: an ordinary `train` in a process and a folder of its own, where it runs, and how far it has come.

A process of its own survives neither more nor less than it should: memory that runs out, a crash or a kill end this
trial alone, and its folder holds the checkpoint from which it goes on. There is one place for each training that can
run at the same time.
"""

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from oneformer_jax.app.automl.request import SPEC, SearchRun
from oneformer_jax.app.automl.study import Trial
from oneformer_jax.app.run.children import environment, gpu_names, whole_groups
from oneformer_jax.app.run.status import read_status
from oneformer_jax.app.spec.automl_keys import LOSS
from oneformer_jax.devices import VISIBLE, DeviceChoice
from oneformer_jax.errors import OneFormerError
from oneformer_jax.training.logbook import read_log

TRIALS, OUTPUT = "trials", "output.txt"
COUNT = "import jax, json; print(json.dumps([jax.default_backend(), jax.local_device_count()]))"


@dataclass(frozen=True)
class Place:
    """What the training of a trial may use: the environment that confines it, and its cores (empty: all)."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    cores: frozenset[int] = frozenset()


def find_places(choice: DeviceChoice, at_most: int) -> list[Place]:
    """Places of as many devices each as the choice counts, or the one of its indices; `at_most` 0: all."""
    backend, count = count_devices()
    if backend == "gpu":
        return gpu_places(count, choice, at_most, os.environ.get(VISIBLE, ""))
    if backend == "cpu" and at_most > 1:
        return cpu_places(sorted(os.sched_getaffinity(0)), at_most)
    return [Place(backend)]


def count_devices() -> tuple[str, int]:
    """The backend that a training would use, and its devices. Raises OneFormerError where JAX does not start.

    Another process counts: this one must not start an accelerator, whose memory it would take from its trials.
    """
    result = subprocess.run([sys.executable, "-P", "-c", COUNT], capture_output=True, text=True, check=False)
    try:
        backend, count = json.loads(result.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = result.stderr.strip().splitlines()
        raise OneFormerError(f"JAX cannot start: {said[-1] if said else 'no output'}") from None
    return str(backend), int(count)


def gpu_places(count: int, choice: DeviceChoice, at_most: int, visible: str) -> list[Place]:
    """Groups of devices in their order, one process each; `visible` is what restricts this process already."""
    names = gpu_names(count, visible)
    groups = whole_groups(range(count), min(choice.count, count))
    indices = groups if choice.indices is None else [list(choice.indices)]
    return [
        Place(f"gpu {' '.join(map(str, group))}", {VISIBLE: ",".join(names[index] for index in group)})
        for group in indices[: at_most or None]
    ]


def cpu_places(cores: Sequence[int], number: int) -> list[Place]:
    """The cores shared out as evenly as they can be, each place at least one."""
    number = min(number, len(cores))
    ends = [round(index * len(cores) / number) for index in range(number + 1)]
    shares = [frozenset(cores[start:end]) for start, end in pairwise(ends)]
    return [Place(f"cores {' '.join(map(str, sorted(share)))}", cores=share) for share in shares]


def trial_folder(folder: Path, number: int) -> Path:
    """Where trial `number` of the study in `folder` lies."""
    return folder / TRIALS / f"{number:04d}"


class Training:
    """A trial and the process that trains it; `over` once the trial has ended, with a `failure` where it has failed.

    `command` trains the spec in the file that it gets as its last argument. It must end when its standard input does.
    """

    def __init__(self, trial: Trial, settings: SearchRun, folder: Path, place: Place, command: Sequence[str]) -> None:
        self.over, self.failure = False, ""
        self._trial, self._metric, self._sign = trial, settings.metric, settings.study.sign
        self._folder = trial_folder(folder, trial.number)
        self._behind = False
        self._process: subprocess.Popen[bytes] | None = None
        try:
            secrets = settings.trials.write(trial.values, self._folder)
        except OneFormerError as error:  # values that are fine one by one and not together
            self._fail(str(error))
            return
        with (self._folder / OUTPUT).open("ab") as output:
            self._process = subprocess.Popen(
                [*command, str(self._folder / SPEC)],
                stdin=subprocess.PIPE,  # never written to: it closes when this process ends, however it ends
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment(), **secrets, **place.environment},
                start_new_session=True,  # Ctrl-C is for the study, which then stops its trials
            )
        if place.cores:
            os.sched_setaffinity(self._process.pid, place.cores)

    def watch(self) -> bool:
        """Reports what is new, and ends the trial if its training has ended. Whether anything was new."""
        if self._process is None:
            return False
        code = self._process.poll()  # before the files are read: what is written last then is read
        new = not self._behind and self._report()
        if code is None:
            return new
        self.wait()
        self.over = True
        if self._behind:
            return True
        score = progress(self._folder, self._metric).best_until(None, self._sign)
        if code != 0:
            self._fail(why_it_failed(self._folder, code))
        elif score is None:
            self._fail(f"it reported no {self._metric}")
        else:
            self._trial.complete(score)
        return True

    def _report(self) -> bool:
        reached = progress(self._folder, self._metric)
        new = False
        for epoch, step in reached.epochs.items():
            score = reached.best_until(step, self._sign)
            if step not in reached.scores or score is None or epoch in self._trial.reported:
                continue
            new = True
            if self._trial.report(epoch, score):
                self._behind = True
                self.stop()
                break
        return new

    def _fail(self, reason: str) -> None:
        self.over, self.failure = True, reason
        self._trial.fail(reason)

    def stop(self) -> None:
        """Asks the training to save its step and end; the trial stays unfinished."""
        if self._process is not None:
            self._process.terminate()

    def wait(self) -> None:
        """Until the training has ended."""
        if self._process is not None:
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()


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
    """What the training in `folder` has reached, by the files that every training writes; {} where it has not begun.

    A score that is not defined is left out.
    """
    epochs, scores = _epochs(folder / "status.json")
    if metric != LOSS:
        validations = [record for record in read_log(folder / "log.jsonl") if record["kind"] == "validation"]
        scores = {record["step"]: record.get(metric) for record in validations}
    numbers = [(step, score) for step, score in sorted(scores.items()) if isinstance(score, int | float)]
    return Progress({step: float(score) for step, score in numbers if math.isfinite(score)}, epochs)


def _epochs(path: Path) -> tuple[dict[int, int], dict[int, Any]]:
    """By epoch the step that ended it, and by step the mean loss: they stand on two lines that follow each other."""
    epochs: dict[int, int] = {}
    losses: dict[int, Any] = {}
    step = None
    for line in read_status(path):
        kpi = line.get("kpi")
        if type(line.get("epoch")) is int and type(line.get("step")) is int:
            step = line["step"]
            epochs[line["epoch"] + 1] = step
        elif isinstance(kpi, dict) and LOSS in kpi and step is not None and line.get("status") == "RUNNING":
            losses[step] = kpi[LOSS]
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
