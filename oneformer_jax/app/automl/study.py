"""A study: trials proposed, reported and ended, all in a storage that outlives the process.

The one place that drives Optuna, whose samplers and pruners have TAO's names here. bayesian: tree-structured Parzen
estimators (Bergstra et al. 2011, multivariate: Falkner et al. 2018) or a Gaussian process with log expected
improvement. hyperband (Li et al. 2017) and asha (Li et al. 2018): random values; a trial that is not among the best
1/`reduction_factor` of those that have trained as many epochs is stopped, which is decided when it gets there
(asynchronously), so that no training waits for another.

Each call that changes a trial is written to the storage before it returns: a process that is killed at any moment
leaves trials that are finished, and running ones that the next process takes over.
"""

import importlib.util
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from oneformer_jax.app.automl.parameter import Parameter
from oneformer_jax.app.automl.request import SearchSettings
from oneformer_jax.errors import OneFormerError

RANDOM_TRIALS = 5
"""Random trials of bayesian before its model has data."""

optuna.logging.set_verbosity(optuna.logging.ERROR)

NAME = "oneformer"
State = Literal["running", "complete", "stopped", "failed"]
STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True)
class Record:
    """What the storage knows of a trial, as results.json says it: the values of the searched keys, its best score so
    far, and why it failed.

    `scores` maps epochs to the best score until then; `epochs` is the last one with a report.
    """

    number: int
    state: State
    score: float | None
    epochs: int
    baseline: bool
    values: dict[str, Any]
    scores: dict[int, float]
    reason: str | None
    seconds: float | None


def make_sampler(settings: SearchSettings, number: int) -> optuna.samplers.BaseSampler:
    """What proposes trial `number`: a pure function of the settings, the number and the trials before.

    A study that goes on in another process so proposes what it would have proposed in the first one.
    """
    seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
    if settings.algorithm != "bayesian":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):  # both have been so for years
        if settings.surrogate == "gp":
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=RANDOM_TRIALS, deterministic_objective=False)
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=RANDOM_TRIALS, multivariate=True, group=True, constant_liar=True
        )


def make_pruner(settings: SearchSettings) -> optuna.pruners.BasePruner:
    """What decides at each report whether a trial is stopped."""
    first, factor = settings.min_epochs, settings.reduction_factor
    if settings.algorithm == "hyperband":
        return optuna.pruners.HyperbandPruner(first, settings.max_epochs, factor)
    if settings.algorithm == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(first, factor)
    return optuna.pruners.NopPruner()


@contextmanager
def _reading(file: Path | None) -> Iterator[None]:
    """What SQLite, SQLAlchemy or Optuna say of a storage that is damaged, or of a disk that takes no more, as a
    OneFormerError."""
    there = file is not None and file.exists()
    try:
        yield
    except OneFormerError:
        raise
    except Exception as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        if "disk is full" in said or "unable to open database" in said or "readonly database" in said:
            hint = "free disk space or fix permissions, then run the same command again"
            raise OneFormerError(f"the study cannot be written: {said}", where=str(file), hint=hint) from error
        if not there:
            raise
        raise OneFormerError(
            f"the study cannot be read: {said}",
            where=str(file),
            hint="move the file away to begin a new study, or use another results_dir",
        ) from error


class Study:
    """The trials of one search.

    `base` holds the spec's values of the searched keys and of those that they depend on; `run_baseline`: the first
    trial trains these. Raises OneFormerError where the storage holds another study, or PyTorch is needed and missing.
    """

    def __init__(
        self,
        settings: SearchSettings,
        parameters: Sequence[Parameter],
        base: Mapping[str, Any],
        *,
        file: Path | None = None,
        identity: Mapping[str, Any] | None = None,
        run_baseline: bool = False,
    ) -> None:
        gaussian = settings.algorithm == "bayesian" and settings.surrogate == "gp"
        if gaussian and importlib.util.find_spec("torch") is None:  # in which Optuna's is written
            raise OneFormerError(
                "the Gaussian process needs PyTorch, which is not installed",
                where="automl.surrogate",
                hint="pip install torch (the CPU build will do), or set automl.surrogate=tpe",
            )
        self.settings, self.parameters, self.base = settings, tuple(parameters), dict(base)
        with _reading(file):
            self._study = optuna.create_study(
                storage=None if file is None else f"sqlite:///{file.absolute()}",
                study_name=NAME,
                direction=settings.direction,
                pruner=make_pruner(settings),
                load_if_exists=True,
            )
            known = self._study.user_attrs.get("identity")
            self._study.get_trials(deepcopy=False)
        self._refuse_another_study(known, dict(identity or {}), str(file or ""))
        if run_baseline and not self._study.trials:
            positions = {p.path: p.nearest(self.base[p.path]) for p in self.parameters}
            self._study.enqueue_trial(positions, user_attrs={"baseline": True})

    def _refuse_another_study(self, known: Any, identity: dict[str, Any], where: str) -> None:
        """The storage keeps what defines the study; a study with other trials than these would compare them wrongly."""
        if not isinstance(known, dict):
            self._study.set_user_attr("identity", identity)
            return
        different = [name for name in sorted({*known, *identity}) if known.get(name) != identity.get(name)]
        if different:
            changes = "; ".join(f"{name} was {known.get(name)}, now it is {identity.get(name)}" for name in different)
            raise OneFormerError(
                f"the study in this folder is a different one: {changes}",
                where=where,
                hint="undo these changes, or use another results_dir",
            )

    def unfinished(self) -> "list[Trial]":
        """The trials that a process before this one has left running, as they are to be taken over."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        taken = [self._take(optuna.trial.Trial(self._sampled(frozen.number), frozen._trial_id)) for frozen in running]
        return [trial for trial in taken if trial is not None]

    def propose(self) -> "Trial | None":
        """The next trial; None where all are there. One for which no values exist fails at once."""
        begun = tuple(STATES)
        while (number := len(self._study.get_trials(deepcopy=False, states=begun))) < self.settings.max_trials:
            if (trial := self._take(self._sampled(number).ask())) is not None:
                return trial
        return None

    def _sampled(self, number: int) -> optuna.Study:
        self._study.sampler = make_sampler(self.settings, number)
        return self._study

    def _take(self, trial: optuna.Trial) -> "Trial | None":
        """Draws the values; None where there are none. Optuna keeps those drawn before the process ended."""
        drawn: dict[str, Any] = {}
        try:
            with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
                for parameter in self.parameters:
                    drawn[parameter.path] = parameter.value(trial, self.base | drawn)
        except OneFormerError as error:
            Trial(self, trial, {}).fail(str(error))
            return None
        values = {} if trial.user_attrs.get("baseline") else drawn
        trial.set_user_attr("values", values)
        return Trial(self, trial, values)

    def records(self) -> list[Record]:
        """All trials that have begun, in their order."""
        return [self._record(frozen) for frozen in self._study.get_trials(deepcopy=False) if frozen.state in STATES]

    def _record(self, frozen: FrozenTrial) -> Record:
        searched = [parameter.path for parameter in self.parameters]
        own = {path: self.base[path] for path in searched} | frozen.user_attrs.get("values", {})
        signed = [self.settings.sign * score for score in frozen.intermediate_values.values()]
        best = self.settings.sign * max(signed) if signed else None
        return Record(
            number=frozen.number,
            state=STATES[frozen.state],
            score=frozen.value if frozen.state == TrialState.COMPLETE else best,
            epochs=max(frozen.intermediate_values, default=0),
            baseline=bool(frozen.user_attrs.get("baseline")),
            values={path: own[path] for path in searched},
            scores=dict(frozen.intermediate_values),
            reason=frozen.user_attrs.get("reason"),
            seconds=None if frozen.duration is None else frozen.duration.total_seconds(),
        )

    def best(self) -> Record | None:
        """The best trial that came to its end; None where none has."""
        complete = [record for record in self.records() if record.state == "complete" and record.score is not None]
        return max(complete, key=lambda record: self.settings.sign * (record.score or 0.0), default=None)

    def importance(self) -> dict[str, float]:
        """How much each key decides whether a trial is in the better half (PED-ANOVA), shares of 1.

        {} where fewer than four trials with different scores came to their end.
        """
        scores = {record.score for record in self.records() if record.state == "complete"}
        if len(scores) < 4:
            return {}
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.5)
        found = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
        return {name: share for name, share in found.items() if math.isfinite(share)}


class Trial:
    """A trial that runs. `values` are those that differ from the spec, {} for the baseline."""

    def __init__(self, study: Study, trial: optuna.Trial, values: dict[str, Any]) -> None:
        self.number, self.values = trial.number, values
        self._study, self._trial = study, trial
        # Those before an interruption: the training repeats the epochs after its last checkpoint, the trial does not.
        self.reported = set(study._study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def report(self, epoch: int, score: float) -> bool:
        """The score after `epoch` epochs, of all until then the best. True: the trial was behind and ends here."""
        if epoch in self.reported:
            return False
        self._trial.report(score, epoch)
        self.reported.add(epoch)
        # The baseline goes to its end, that the best is never worse than it; and no trial is stopped at its last epoch.
        goes_on = bool(self._trial.user_attrs.get("baseline")) or epoch >= self._study.settings.max_epochs
        # Asked in any case: the pruner notes by it that the trial came to this rung.
        behind = self._trial.should_prune() and not goes_on
        if behind:
            self._study._study.tell(self._trial, state=TrialState.PRUNED)
        return behind

    def complete(self, score: float) -> None:
        """The trial came to its end."""
        self._study._study.tell(self._trial, score)

    def fail(self, reason: str) -> None:
        """The trial has no score."""
        self._trial.set_user_attr("reason", reason)
        self._study._study.tell(self._trial, state=TrialState.FAIL)
