"""Scores under the names that TAO's status.json has for them."""

from collections.abc import Mapping
from typing import Any

TAO_NAMES = {"pixel_accuracy": "ACC_all"}


def kpi(metrics: Mapping[str, Any], *, prefix: str = "") -> dict[str, float | None]:
    """The scores in the content of a metrics.json (see `evaluation.report`), None where not defined.

    `mIoU`, `ACC_all`, PQ and AP with `prefix`; without it, as in TAO, `IoU_<class>` where classes are there and the
    scores of single data sets (`mIoU/<name>`, `ACC/<name>`).
    """
    scores = {}
    for name, value in metrics.items():
        if value is None or isinstance(value, float):
            score, slash, dataset = name.partition("/")
            if slash:
                scores[f"{TAO_NAMES.get(score, score).removesuffix('_all')}/{dataset}"] = value
            else:
                scores[prefix + TAO_NAMES.get(score, score)] = value
    for name, row in metrics.get("per_class", {}).items():
        if "IoU" in row:
            scores[f"IoU_{name.replace(' ', '_')}"] = row["IoU"]
    return scores
