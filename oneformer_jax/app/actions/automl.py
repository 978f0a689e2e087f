"""The automl action: spec in; trials, the best spec and the best checkpoint out."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from oneformer_jax.app.automl.policy import require_optuna
from oneformer_jax.app.run.checked_data import checked_datasets
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.settings import data as datasets
from oneformer_jax.app.settings import evaluation as scoring
from oneformer_jax.app.spec import Spec
from oneformer_jax.app.spec.automl_keys import LOSS
from oneformer_jax.errors import SpecError


def automl(spec: Spec, folder: Path, status: StatusFile, console: Console) -> None:
    """Searches in `folder`; a study that lies there goes on.

    Raises OneFormerError before the first trial where the spec, the data or the installation are wrong; later where no
    trial came to its end.
    """
    require_optuna()
    _refuse_what_has_no_score(spec)
    splits: tuple[datasets.Split, ...] = ("train", "val") if spec.dataset.val.annotations else ("train",)
    checked_datasets(spec, splits, console)
    import_module("oneformer_jax.app.automl.search").search(spec, folder, train_command, Reporter(status, console))


def train_command(spec_file: Path) -> list[str]:
    """The process of a trial."""
    return [sys.executable, "-m", "oneformer_jax.app.cli.trial", str(spec_file)]


class Reporter:
    """What a search tells, on the screen and in status.json."""

    def __init__(self, status: StatusFile, console: Console) -> None:
        self.console, self._status = console, status

    def warning(self, text: str) -> None:
        self._status.warning(text)

    def trial_ended(self, text: str, kpi: dict[str, Any]) -> None:
        self._status.write("RUNNING", text, kpi=kpi)

    def end_with(self, text: str) -> None:
        self._status.end_with(text)


def _refuse_what_has_no_score(spec: Spec) -> None:
    if spec.train.is_dry_run:
        raise SpecError("a dry run has no score to search for", where="train.is_dry_run")
    if spec.automl.metric == LOSS:
        return
    if not spec.dataset.val.annotations:
        raise SpecError(
            f"{spec.automl.metric} is taken on dataset.val, which is not set",
            where="automl.metric",
            hint=f"set dataset.val.annotations, or automl.metric={LOSS} with automl.direction=minimize",
        )
    scoring.refuse_unknown_score(spec, spec.automl.metric, "automl.metric")
