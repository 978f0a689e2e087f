"""Runs the trials of a study, as many at a time as there are places."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from oneformer_jax.app.automl.devices import Place
from oneformer_jax.app.automl.progress import progress, why_it_failed
from oneformer_jax.app.automl.request import SearchRun
from oneformer_jax.app.automl.study import Study, Trial
from oneformer_jax.app.automl.training import Command, Training, trial_folder
from oneformer_jax.checkpoints.read import FOLDER
from oneformer_jax.errors import OneFormerError

POLL_SECONDS = 0.5
FAILURES_AT_THE_START = 3


def run_trials(
    study: Study,
    settings: SearchRun,
    folder: Path,
    places: Sequence[Place],
    command: Command,
    changed: Callable[[], None],
) -> None:
    """Until the study has all its trials; those that a process before this one left running come first.

    `changed` is called after every report and every end. Raises OneFormerError when the first trials all fail: what is
    wrong then is wrong for every trial. Whatever ends it, the trials that run are asked to save their step and end;
    they stay unfinished in the study.
    """
    waiting = study.unfinished()
    running: dict[str, _Run] = {}
    failures: list[str] = []
    succeeded = False
    try:
        while True:
            for place in places:
                if place.name not in running and (trial := waiting.pop(0) if waiting else study.propose()) is not None:
                    running[place.name] = _Run(study, settings, folder, trial, command, place)
                    changed()
            if not running:
                return
            time.sleep(POLL_SECONDS)
            for name, run in list(running.items()):
                if run.watch():
                    changed()
                if run.over:
                    del running[name]
                    succeeded = succeeded or not run.failure
                    failures += [run.failure] * bool(run.failure)
                    changed()  # which links the best checkpoint before others are removed
                    if settings.keep_only_the_best:
                        _keep_only_the_best(study, folder)
            if not succeeded and len(failures) >= FAILURES_AT_THE_START:
                raise OneFormerError(f"the first {len(failures)} trials all failed, the last one: {failures[-1]}")
    finally:
        for run in running.values():
            run.stop()
        for run in running.values():
            run.wait()


class _Run:
    """A trial and its training."""

    def __init__(
        self, study: Study, settings: SearchRun, folder: Path, trial: Trial, command: Command, place: Place
    ) -> None:
        self.over, self.failure = False, ""
        self._sign, self._metric, self._trial = study.settings.sign, settings.metric, trial
        self._folder = trial_folder(folder, trial.number)
        self._behind = False
        self._training: Training | None = None
        try:
            settings.trials.write(trial.values, self._folder)
        except OneFormerError as error:  # values that are fine one by one and not together
            self._fail(str(error))
        else:
            self._training = Training(self._folder, command, place)

    def watch(self) -> bool:
        """Reports what is new, and ends the trial if its training has ended. Whether anything was new."""
        if self._training is None:
            return False
        code = self._training.ended  # before the files are read: what is written last then is read
        new = not self._behind and self._report()
        if code is None:
            return new
        self._training.wait()
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
                assert self._training is not None
                self._training.stop()
                break
        return new

    def _fail(self, reason: str) -> None:
        self.over, self.failure = True, reason
        self._trial.fail(reason)

    def stop(self) -> None:
        """Asks the training to save its step and end; the trial stays unfinished."""
        if self._training is not None:
            self._training.stop()

    def wait(self) -> None:
        """Until the training has ended."""
        if self._training is not None:
            self._training.wait()


def _keep_only_the_best(study: Study, folder: Path) -> None:
    """Removes the checkpoints of the trials that have ended, but for the best one."""
    best = study.best()
    for record in study.records():
        if record.state != "running" and (best is None or record.number != best.number):
            trial = trial_folder(folder, record.number)
            shutil.rmtree(trial / FOLDER, ignore_errors=True)
            for link in ("best", "latest"):
                (trial / link).unlink(missing_ok=True)
