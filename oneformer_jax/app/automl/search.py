"""A search from end to end: the study of a spec, its trials, what it leaves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.console import Console

from oneformer_jax.app.automl.algorithms import SearchSettings, require_torch
from oneformer_jax.app.automl.devices import find_places
from oneformer_jax.app.automl.parameter import Parameter
from oneformer_jax.app.automl.plots import draw_page
from oneformer_jax.app.automl.policy import train_schema
from oneformer_jax.app.automl.results import BEST, BEST_SPEC, RESULTS, write_results
from oneformer_jax.app.automl.runner import run_trials
from oneformer_jax.app.automl.search_space import LEAVES, flatten, left_out, search_space
from oneformer_jax.app.automl.study import Study
from oneformer_jax.app.automl.table import line, shown, space_table, trials_table
from oneformer_jax.app.automl.training import Command
from oneformer_jax.app.spec import Spec, given_values
from oneformer_jax.errors import OneFormerError

STORAGE, PAGE = "study.db", "plots.png"
OTHER_SECTIONS = ("automl", "wandb", "evaluate", "inference", "export", "gen_trt_engine", "quantize")
OTHER_KEYS = ("results_dir", "train.results_dir", "train.num_gpus", "train.gpu_ids", "automl_policy", "train.verbose")
"""Sections and keys that may change while a study goes on: its scores do not depend on them."""
DEFINING = ("algorithm", "surrogate", "metric", "direction", "min_epochs", "reduction_factor")


@runtime_checkable
class Report(Protocol):
    """Who is told how the search goes."""

    console: Console

    def warning(self, text: str) -> None: ...

    def trial_ended(self, text: str, kpi: dict[str, Any]) -> None: ...

    def end_with(self, text: str) -> None: ...


def search(spec: Spec, folder: Path, command: Command, report: Report) -> None:
    """Runs the study of `spec` in `folder` to its end; one that lies there goes on. `command` trains a trial.

    Raises OneFormerError where the spec asks for what cannot be searched or no trial came to its end.
    """
    console, metric = report.console, spec.automl.metric
    schema = train_schema(Path(spec.automl.skill_dir) if spec.automl.skill_dir else None)
    parameters = search_space(spec, schema)
    if spec.automl.algorithm == "bayesian" and spec.automl.surrogate == "gp":
        require_torch()
    study = open_study(spec, parameters, folder)
    console.print(space_table(parameters, study.base))
    _tell_what_is_left_out(spec, schema, parameters, report)
    ended = {record.number for record in study.records() if record.state != "running"}
    if ended:
        console.print(f"the study goes on: {len(ended)} of {study.settings.max_trials} trials are there: {folder}")
    places = find_places(spec.train.num_gpus, _gpu_ids(spec), spec.automl.max_concurrent)
    console.print(f"{len(places)} trial(s) at a time: {', '.join(place.name for place in places)}", highlight=False)

    with shown(study, metric, console) as show:

        def changed() -> None:
            for record in study.records():
                if record.state != "running" and record.number not in ended:
                    ended.add(record.number)
                    write_results(study, spec, folder)
                    best = study.best()
                    report.trial_ended(line(record, metric), {} if best is None else {metric: best.score})
            show()

        run_trials(study, spec, folder, places, command, changed)

    content = write_results(study, spec, folder)
    draw_page(study, metric, folder / PAGE)
    if not console.is_terminal:
        console.print(trials_table(study, metric))
    best = content["best"]
    if best is None:
        reasons = [record.reason for record in study.records() if record.reason]
        raise OneFormerError(f"no trial came to its end{': ' + reasons[-1] if reasons else ''}", where=str(folder))
    console.print(f"best {metric}: {best['score']:.4f}, trial {best['trial']}", highlight=False)
    for name, file in (("spec", BEST_SPEC), ("checkpoint", BEST), ("results", RESULTS), ("plots", PAGE)):
        console.print(f"{name:>10}: {folder / file}", highlight=False, soft_wrap=True)
    report.end_with(f"{len(ended)} trials, the best is trial {best['trial']} with {metric} {best['score']:.4f}.")


def open_study(spec: Spec, parameters: tuple[Parameter, ...], folder: Path) -> Study:
    """The study that lies in `folder`, or a new one. Raises OneFormerError where the spec has changed since."""
    base = {parameter.path: spec.value(parameter.path) for parameter in parameters}
    limits = {p.relation.other for p in parameters if p.relation is not None}
    return Study(
        search_settings(spec),
        parameters,
        base | {path: spec.value(path) for path in limits},
        file=folder / STORAGE,
        identity=_identity(spec, parameters),
        run_baseline=spec.automl.run_baseline,
    )


def search_settings(spec: Spec) -> SearchSettings:
    """What the `automl` section asks of a study."""
    section = spec.automl
    return SearchSettings(
        algorithm=section.algorithm,  # type: ignore[arg-type]  # the spec refuses those that do not exist here
        direction=section.direction,
        max_trials=section.max_recommendations,
        max_epochs=spec.train.num_epochs,
        surrogate=section.surrogate,
        min_epochs=section.min_epochs,
        reduction_factor=section.reduction_factor,
        seed=spec.train.seed,
    )


def _identity(spec: Spec, parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    """What makes the trials of one study comparable."""
    kept = {name: part for name, part in given_values(spec).items() if name not in OTHER_SECTIONS}
    keys = {path: value for path, value in _flat(kept).items() if path not in OTHER_KEYS}
    searched = {f"range of {parameter.path}": parameter.describe() for parameter in parameters}
    return keys | {f"automl.{name}": getattr(spec.automl, name) for name in DEFINING} | searched


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in data.items():
        path = prefix + name
        found |= {path: value} if path in LEAVES or not isinstance(value, Mapping) else _flat(value, f"{path}.")
    return found


def _gpu_ids(spec: Spec) -> tuple[int, ...]:
    return spec.train.gpu_ids if spec.is_changed("train.gpu_ids") else ()


def _tell_what_is_left_out(
    spec: Spec, schema: Mapping[str, Any], parameters: tuple[Parameter, ...], report: Report
) -> None:
    searched = {parameter.path for parameter in parameters}
    for path, why in left_out(flatten(schema["properties"])).items():
        if path in searched:
            report.warning(f"{path} is searched because the spec asks for it: {why}")
        elif not spec.automl.hyperparameters:
            report.console.print(f"not searched: {path}: {why}", highlight=False, soft_wrap=True)
