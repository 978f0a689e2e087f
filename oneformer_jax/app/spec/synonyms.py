"""Other names under which a key is accepted, and sections that TAO has and this project has not."""

from typing import Any

from oneformer_jax.app.spec.problems import Problem
from oneformer_jax.app.spec.source import Source, describe

# The first three names are those of TAO's guide, the fourth is where TAO's code looks for the key, the others are those
# of TAO's AutoML settings.
SYNONYMS = {
    "model.task_toggling.semantic_on": "model.test.semantic_on",
    "model.task_toggling.instance_on": "model.test.instance_on",
    "model.task_toggling.panoptic_on": "model.test.panoptic_on",
    "dataset.augmentation.cutmix_prob": "dataset.cutmix_prob",
    "automl.automl_max_recommendations": "automl.max_recommendations",
    "automl.num_recommendations": "automl.max_recommendations",
    "automl.automl_hyperparameters": "automl.hyperparameters",
    "automl.automl_reduction_factor": "automl.reduction_factor",
    "automl.automl_max_concurrent": "automl.max_concurrent",
    "automl.automl_delete_intermediate_ckpt": "automl.delete_intermediate_ckpt",
}
NOT_AVAILABLE = {"model.backbone.dinat": "DiNAT is not available; use D2SwinTransformer"}


def rename_synonyms(source: Source) -> None:
    """Moves values to the names of the spec. Two different values of one key are a problem."""
    for other, path in SYNONYMS.items():
        value = _pop(source.data, other)
        parent = _parent(source.data, path) if value is not None else None
        if parent is None:  # not there, or under something that is no section, which is reported later
            continue
        name = path.rpartition(".")[2]
        if parent.get(name, value) not in (value, None):
            what = f"{other} is {describe(value)} but {path} is {describe(parent[name])}"
            hint = "these are two names of one key: keep one"
            source.problems.append(Problem(what, source.places.get(other, ""), hint))
        parent[name] = value
        source.places[path] = source.places.get(other, "")


def reason_not_available(path: str) -> str:
    """Why a key of TAO does not exist here; "" for every other path."""
    return next((why for name, why in NOT_AVAILABLE.items() if f"{path}.".startswith(f"{name}.")), "")


def _pop(data: dict[Any, Any], path: str) -> Any:
    """Takes a dotted key out of nested data, with the section that it leaves empty; None when it is not there."""
    name, _, rest = path.partition(".")
    if not rest:
        return data.pop(name, None)
    child = data.get(name)
    if not isinstance(child, dict):
        return None
    value = _pop(child, rest)
    if value is not None and not child:
        del data[name]
    return value


def _parent(data: Any, path: str) -> dict[Any, Any] | None:
    """The section that holds the last name of `path`, made where it is not there yet."""
    for name in path.split(".")[:-1]:
        if data.get(name) is None:
            data[name] = {}
        data = data[name]
        if not isinstance(data, dict):
            return None
    return data
