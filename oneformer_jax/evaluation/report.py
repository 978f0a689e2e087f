"""Metrics as numbers by name: for files (strict JSON), and the scores over all classes."""

import math
from collections import Counter
from typing import Any

from oneformer_jax.data.datasets.content import Content
from oneformer_jax.evaluation.evaluator import Metrics
from oneformer_jax.tasks import Task

SCORES: dict[Task, tuple[str, ...]] = {
    "semantic": ("mIoU", "pixel_accuracy"),
    "instance": ("AP", "AP50", "AP75"),
    "panoptic": (
        "PQ",
        "SQ",
        "RQ",
        *(f"{score}_{group}" for group in ("things", "stuff") for score in ("PQ", "SQ", "RQ")),
    ),
}
"""The scores over all classes that each task gives, the most informative one first; all are better when they are
larger."""


def is_defined(score: str, content: Content) -> bool:
    """Whether data with this content gives a score over all classes a value, whatever is predicted."""
    if score in SCORES["semantic"]:
        return bool(content.counted.any() or content.crowds.any())
    if score in SCORES["instance"] or score.endswith("_things"):
        return content.things
    return content.stuff if score.endswith("_stuff") else content.teaches("panoptic")


def metrics_json(metrics: Metrics, *, per_class: bool = True) -> dict[str, Any]:
    """The content of metrics.json.

    Fractions 0..1; null where a value is not defined (a class that does not occur). Keys of tasks that did not run
    are missing: semantic gives mIoU and pixel_accuracy; panoptic gives PQ, SQ, RQ and the same with _things and
    _stuff; instance gives AP, AP50, AP75. `per_class` maps class names to IoU, PQ, SQ, RQ, AP. Where several data sets
    are scored, each has its own values besides, as num_images/<name>, mIoU/<name> and so on.
    """
    result: dict[str, Any] = {"num_images": metrics.num_images, "geometry": metrics.geometry}
    result |= {f"num_images/{name}": part.num_images for name, part in metrics.parts.items()}
    result |= {name: _defined(value) for name, value in headline(metrics).items()}
    if per_class:
        rows = class_scores(metrics)
        result["per_class"] = {
            name: {key: _defined(float(values[index])) for key, values in rows.items()}
            for index, name in enumerate(_unique(metrics.class_names))
        }
    return result


def percent(value: float) -> str:
    """A fraction in percent for a table, a dash where it is not defined."""
    return "-" if math.isnan(value) else f"{100 * value:.1f}"


def headline(metrics: Metrics) -> dict[str, float]:
    """The scores over all classes by their usual names, NaN where not defined; of each of several data sets too
    (mIoU/<name>)."""
    values = mean_scores(metrics)
    for name, part in metrics.parts.items():
        values |= {f"{key}/{name}": value for key, value in mean_scores(part).items()}
    return values


def mean_scores(metrics: Metrics) -> dict[str, float]:
    """The scores over all classes and images by their usual names."""
    return {name: value for scores in metrics.scores.values() for name, value in scores.overall.items()}


def class_scores(metrics: Metrics) -> dict[str, Any]:
    """Column name -> array (K,) of fractions."""
    return {name: values for scores in metrics.scores.values() for name, values in scores.per_class.items()}


def _unique(names: tuple[str, ...]) -> list[str]:
    """Category names may repeat, keys of JSON may not."""
    count = Counter(names)
    return [f"{name} (class {index})" if count[name] > 1 else name for index, name in enumerate(names)]


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
