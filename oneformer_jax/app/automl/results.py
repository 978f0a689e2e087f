"""What a study leaves: results.json, the best spec and the best checkpoint. Written anew after every trial."""

import json
import os
from pathlib import Path
from typing import Any

from oneformer_jax.app.automl.progress import progress
from oneformer_jax.app.automl.request import SearchRun
from oneformer_jax.app.automl.study import Record, Study
from oneformer_jax.app.automl.training import trial_folder
from oneformer_jax.app.spec import to_yaml
from oneformer_jax.app.spec.automl_keys import LOSS

RESULTS, BEST_SPEC, BEST = "results.json", "best_spec.yaml", "best"


def write_results(study: Study, settings: SearchRun, folder: Path) -> dict[str, Any]:
    """Writes all three and returns the content of results.json.

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
        "best": None if best is None else _best(study, settings, folder, best),
        "importance": study.importance(),
        "trials": [_trial(study, record, folder) for record in study.records()],
    }
    _replace(folder / RESULTS, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return content


def _best(study: Study, settings: SearchRun, folder: Path, best: Record) -> dict[str, Any]:
    trained = {} if best.baseline else best.values
    _replace(folder / BEST_SPEC, to_yaml(settings.trials.trained_alone(trained)))
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
        "step": progress(trial, settings.metric).step_of_best(study.settings.sign),
        "values": best.values,
        "spec": BEST_SPEC,
        "checkpoint": BEST if linked else None,
    }


def _trial(study: Study, record: Record, folder: Path) -> dict[str, Any]:
    return {
        "number": record.number,
        "state": record.state,
        "score": record.score,
        "epochs": record.epoch,
        "baseline": record.baseline,
        "values": record.values,
        "scores": record.reports,
        "reason": record.reason or None,
        "seconds": record.seconds,
        "folder": str(trial_folder(folder, record.number).relative_to(folder)),
    }


def _replace(path: Path, text: str) -> None:
    """The file is the old one or the new one, whenever somebody looks."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text)
    fresh.replace(path)
