"""A search from end to end: its study, its trials, what it leaves."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.console import Console

from oneformer_jax.app.automl.devices import find_places
from oneformer_jax.app.automl.plots import draw_page
from oneformer_jax.app.automl.request import SearchRun
from oneformer_jax.app.automl.results import BEST, BEST_SPEC, RESULTS, write_results
from oneformer_jax.app.automl.runner import run_trials
from oneformer_jax.app.automl.study import Study, require_torch
from oneformer_jax.app.automl.table import line, shown, space_table, trials_table
from oneformer_jax.app.automl.training import Command
from oneformer_jax.errors import OneFormerError

STORAGE, PAGE = "study.db", "plots.png"


@runtime_checkable
class Report(Protocol):
    """Who hears how the search goes."""

    console: Console

    def warning(self, text: str) -> None: ...

    def trial_ended(self, text: str, kpi: dict[str, Any]) -> None: ...

    def end_with(self, text: str) -> None: ...


def search(settings: SearchRun, folder: Path, command: Command, report: Report) -> None:
    """Runs the study in `folder` to its end; one that lies there goes on. `command` trains a trial.

    Raises OneFormerError where another study lies there or no trial finished.
    """
    console, metric = report.console, settings.metric
    if settings.study.algorithm == "bayesian" and settings.study.surrogate == "gp":
        require_torch()
    study = open_study(settings, folder)
    console.print(space_table(settings.parameters, study.base))
    for path, why in settings.searched_against_advice.items():
        report.warning(f"{path} is searched because the spec asks for it: {why}")
    for path, why in settings.not_searched.items():
        console.print(f"not searched: {path}: {why}", highlight=False, soft_wrap=True)
    ended = {record.number for record in study.records() if record.state != "running"}
    if ended:
        console.print(f"resuming the study: {len(ended)} of {study.settings.max_trials} trials exist: {folder}")
    places = find_places(settings.devices, settings.at_most)
    console.print(f"{len(places)} trial(s) at a time: {', '.join(place.name for place in places)}", highlight=False)

    with shown(study, metric, console) as show:

        def changed() -> None:
            for record in study.records():
                if record.state != "running" and record.number not in ended:
                    ended.add(record.number)
                    write_results(study, settings, folder)
                    best = study.best()
                    report.trial_ended(line(record, metric), {} if best is None else {metric: best.score})
            show()

        run_trials(study, settings, folder, places, command, changed)

    content = write_results(study, settings, folder)
    draw_page(study, metric, folder / PAGE)
    if not console.is_terminal:
        console.print(trials_table(study, metric))
    best = content["best"]
    if best is None:
        reasons = [record.reason for record in study.records() if record.reason]
        raise OneFormerError(f"no trial finished{': ' + reasons[-1] if reasons else ''}", where=str(folder))
    console.print(f"best {metric}: {best['score']:.4f}, trial {best['trial']}", highlight=False)
    for name, file in (("spec", BEST_SPEC), ("checkpoint", BEST), ("results", RESULTS), ("plots", PAGE)):
        console.print(f"{name:>10}: {folder / file}", highlight=False, soft_wrap=True)
    report.end_with(f"{len(ended)} trials, the best is trial {best['trial']} with {metric} {best['score']:.4f}.")


def open_study(settings: SearchRun, folder: Path) -> Study:
    """The study that lies in `folder`, or a new one. Raises OneFormerError where it is another one."""
    return Study(
        settings.study,
        settings.parameters,
        settings.base,
        file=folder / STORAGE,
        identity=settings.identity,
        run_baseline=settings.run_baseline,
    )
