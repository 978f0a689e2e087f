"""The automl action: a search in; trials, the best spec and the best checkpoint out."""

from pathlib import Path
from typing import Any

from oneformer_jax.app.automl.request import SearchRun
from oneformer_jax.app.package import TRIAL
from oneformer_jax.app.run.checked_data import checked_datasets
from oneformer_jax.app.run.execute import Run


def automl(settings: SearchRun, run: Run) -> None:
    """Searches in the folder of the run; a study that lies there goes on.

    Raises OneFormerError before the first trial where the data or the installation are wrong; later where no trial came
    to its end.
    """
    from oneformer_jax.app.automl.search import search  # imports Optuna, without which there are no settings

    checked_datasets(settings.data, run.console)
    search(settings, run.folder, train_command, Reporter(run))


def train_command(spec_file: Path) -> list[str]:
    """The process of a trial."""
    return [*TRIAL, str(spec_file)]


class Reporter:
    """Passes what a search says to the screen and to status.json."""

    def __init__(self, run: Run) -> None:
        self.console, self._status = run.console, run.status

    def warning(self, text: str) -> None:
        self._status.warning(text)

    def trial_ended(self, text: str, kpi: dict[str, Any]) -> None:
        self._status.write("RUNNING", text, kpi=kpi)

    def end_with(self, text: str) -> None:
        self._status.end_with(text)
