"""The automl action: a search in; trials, the best spec and the best checkpoint out."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.live import Live

from oneformer_jax.app.automl.display import draw_page, line, space_table, trials_table
from oneformer_jax.app.automl.request import SearchRun
from oneformer_jax.app.automl.study import Record, Study
from oneformer_jax.app.automl.training import Place, Training, find_places, progress, trial_folder
from oneformer_jax.app.run.asked import asked_of_training
from oneformer_jax.app.run.children import TRIAL
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.opened import check_validation, checked_datasets
from oneformer_jax.app.spec import to_yaml
from oneformer_jax.app.spec.automl_keys import LOSS
from oneformer_jax.checkpoints.read import FOLDER
from oneformer_jax.data.storage.addresses import redacted
from oneformer_jax.errors import OneFormerError
from oneformer_jax.writing import write_json, write_text

STORAGE, PAGE = "study.db", "plots.png"
RESULTS, BEST_SPEC, BEST = "results.json", "best_spec.yaml", "best"
POLL_SECONDS = 0.5
FAILURES_AT_THE_START = 3


def automl(settings: SearchRun, run: Run) -> None:
    """Searches in the folder of the run; a study that lies there goes on.

    Raises OneFormerError before the first trial where the data or the installation are wrong; later where no trial came
    to its end.
    """
    warn = run.status.warning
    datasets = checked_datasets(settings.data, run.console, warn)
    train, val = datasets["train"], datasets.get("val")
    if val is not None:
        check_validation(train, val)
    asked = "" if settings.metric == LOSS else settings.metric
    score = asked_of_training(train, settings.task_prob, val, settings.tasks, asked, warn, key="automl.metric")
    search(settings if settings.metric else settings.scored_by(score), run)


def search(settings: SearchRun, run: Run, command: Sequence[str] = TRIAL) -> None:
    """Runs the study in the folder of the run to its end. `command` trains a trial, see `automl.training.Training`.

    Raises OneFormerError where another study lies there or no trial finished.
    """
    folder, console, metric = run.folder, run.console, settings.metric
    study = Study(
        settings.study,
        settings.parameters,
        settings.base,
        file=folder / STORAGE,
        identity=settings.identity,
        run_baseline=settings.run_baseline,
    )
    trials, epochs = settings.study.max_trials, settings.study.max_epochs
    once = "--automl-policy off, or automl_policy: off in the spec, trains once"
    console.print(f"a search of {trials} trials, each of at most {epochs} epochs; {once}")
    console.print(space_table(settings.parameters, study.base))
    for path, why in settings.searched_against_advice.items():
        run.status.warning(f"{path} is searched because the spec asks for it: {why}")
    for path, why in settings.not_searched.items():
        console.print(f"not searched: {path}: {why}")
    ended = {record.number for record in study.records() if record.state != "running"}
    if ended:
        console.print(f"resuming the study: {len(ended)} of {study.settings.max_trials} trials exist: {folder}")
    places = find_places(settings.devices, settings.at_most)
    console.print(f"{len(places)} trial(s) at a time: {', '.join(place.name for place in places)}")

    # A table that lives on a terminal, elsewhere a line for each trial that ends.
    live = Live(trials_table(study, metric), console=console, auto_refresh=False) if console.is_terminal else None

    def changed() -> None:
        for record in study.records():
            if record.state != "running" and record.number not in ended:
                ended.add(record.number)
                write_results(study, settings, folder)
                best, text = study.best(), line(record, metric)
                run.status.write("RUNNING", text, kpi={} if best is None else {metric: best.score})
                if live is None:
                    console.print(text)
        if live is not None:
            live.update(trials_table(study, metric), refresh=True)

    with live or nullcontext():
        run_trials(study, settings, folder, places, command, changed)

    best = write_results(study, settings, folder)["best"]
    draw_page(study, metric, folder / PAGE)
    if live is None:
        console.print(trials_table(study, metric))
    if best is None:
        reasons = [record.reason for record in study.records() if record.reason]
        raise OneFormerError(f"no trial finished{': ' + reasons[-1] if reasons else ''}", where=str(folder))
    console.print(f"best {metric}: {best['score']:.4f}, trial {best['trial']}")
    for name, file in (("spec", BEST_SPEC), ("checkpoint", BEST), ("results", RESULTS), ("plots", PAGE)):
        console.print(f"{name:>10}: {folder / file}")
    run.status.end_with(f"{len(ended)} trials, the best is trial {best['trial']} with {metric} {best['score']:.4f}.")


def run_trials(
    study: Study,
    settings: SearchRun,
    folder: Path,
    places: Sequence[Place],
    command: Sequence[str],
    changed: Callable[[], None],
) -> None:
    """Until the study has all its trials; those that a process before this one left running come first. As many run at
    a time as there are places.

    `changed` is called after every report and every end. Raises OneFormerError when the first trials all fail: what is
    wrong then is wrong for every trial. Whatever ends it, the trials that run are asked to save their step and end;
    they stay unfinished in the study.
    """
    waiting = study.unfinished()
    running: dict[str, Training] = {}
    failures: list[str] = []
    succeeded = False
    try:
        while True:
            for place in places:
                if place.name not in running and (trial := waiting.pop(0) if waiting else study.propose()) is not None:
                    running[place.name] = Training(trial, settings, folder, place, command)
                    changed()
            if not running:
                return
            time.sleep(POLL_SECONDS)
            for name, training in list(running.items()):
                if training.watch():
                    changed()
                if training.over:
                    del running[name]
                    succeeded = succeeded or not training.failure
                    failures += [training.failure] * bool(training.failure)
                    changed()  # which links the best checkpoint before others are removed
                    if settings.keep_only_the_best:
                        _keep_only_the_best(study, folder)
            if not succeeded and len(failures) >= FAILURES_AT_THE_START:
                raise OneFormerError(f"the first {len(failures)} trials all failed, the last one: {failures[-1]}")
    finally:
        for training in running.values():
            training.stop()
        for training in running.values():
            training.wait()


def _keep_only_the_best(study: Study, folder: Path) -> None:
    """Removes the checkpoints of the trials that have ended, but for the best one."""
    best = study.best()
    for record in study.records():
        if record.state != "running" and (best is None or record.number != best.number):
            trial = trial_folder(folder, record.number)
            shutil.rmtree(trial / FOLDER, ignore_errors=True)
            for link in ("best", "latest"):
                (trial / link).unlink(missing_ok=True)


def write_results(study: Study, settings: SearchRun, folder: Path) -> dict[str, Any]:
    """Writes results.json, best_spec.yaml and best anew, and returns the content of results.json.

    `best_spec.yaml` is the spec with the values of the best trial, to be trained as it is; `best` is a link to that
    trial's checkpoint with the best score (of the training loss: its last one).
    """
    best = study.best()
    content = {
        "algorithm": study.settings.algorithm,
        "surrogate": study.settings.surrogate if study.settings.algorithm == "bayesian" else None,
        "metric": settings.metric,
        "direction": study.settings.direction,
        "search_space": {parameter.path: parameter.describe() for parameter in study.parameters},
        "planned": study.settings.max_trials,
        "best": None if best is None else _best(settings, folder, best),
        "importance": study.importance(),
        "trials": [
            vars(record) | {"folder": str(trial_folder(folder, record.number).relative_to(folder))}
            for record in study.records()
        ],
    }
    write_json(folder / RESULTS, content)
    return content


def _best(settings: SearchRun, folder: Path, best: Record) -> dict[str, Any]:
    trained = {} if best.baseline else best.values
    write_text(folder / BEST_SPEC, to_yaml(redacted(settings.trials.trained_alone(trained))))
    trial = trial_folder(folder, best.number)
    checkpoint = trial / ("latest" if settings.metric == LOSS else "best")
    linked = checkpoint.is_dir()
    if linked:
        fresh = folder / f".{BEST}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.path.relpath(checkpoint.resolve(), folder.resolve()))
        fresh.replace(folder / BEST)
    return {
        "trial": best.number,
        "score": best.score,
        "step": progress(trial, settings.metric).step_of_best(settings.study.sign),
        "values": best.values,
        "spec": BEST_SPEC,
        "checkpoint": BEST if linked else None,
    }
