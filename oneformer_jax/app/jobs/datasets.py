"""The roots of data sets to the keys of an action, by the table in `spec.skill`."""

from collections.abc import Callable, Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from oneformer_jax.app.spec.published.skill import FILES, LABEL_MAPS, SUBSTITUTES, DataKey, data_keys
from oneformer_jax.data.datasets.dataset_root import DatasetRoot, candidates, open_root
from oneformer_jax.data.storage.addresses import is_address, shown
from oneformer_jax.errors import DataError

OPTIONS = {
    "train_datasets": "--train-dataset",
    "eval_dataset": "--eval-dataset",
    "inference_dataset": "--inference-dataset",
    "calibration_dataset": "--calibration-dataset",
}
# What a data set may do without: COCO instances have no PNGs, and names stand in the annotations too.
_OPTIONAL = ("panoptic", "label_map")
_KNOWN = {*FILES.values(), *(name for files in LABEL_MAPS.values() for name in files.values())}


def absolute(location: str) -> str:
    """A location that means the same in another working directory."""
    return location if is_address(location) else str(Path(location).expanduser().absolute())


def source_of(key: DataKey, roots: Collection[str]) -> str | None:
    """The source, of those that have a root, whose file becomes the value of a key; None: there is none."""
    return next((source for source in (key.source, SUBSTITUTES.get(key.source)) if source in roots), None)


def data_values(action: str, roots: Mapping[str, str], named: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """The values of the data keys of an action, without those that are `named` already, and what was not there.

    `roots` are locations by source; a source without one takes the place that `SUBSTITUTES` says, or its keys stay
    unset. Raises DataError: a root cannot be used, or has no images or no annotations.
    """
    values: dict[str, Any] = {}
    notes: list[str] = []
    opened = cache(lambda source: open_root(roots[source], known=_KNOWN, what=OPTIONS[source]))
    for key in data_keys(action):
        source = source_of(key, roots)
        if key.path in named or source is None:
            continue
        value = _value(key, opened, source)
        if value is not None:
            values[key.path] = value
        else:
            notes.append(f"{key.path} stays empty: no {_names(key)} at {shown(roots[source])}")
    return values, notes


def _value(key: DataKey, opened: Callable[[str], DatasetRoot], source: str) -> Any:
    root = opened(source)
    found = {form: location for form, name in key.files.items() if (location := root.find(name)) is not None}
    if not found and key.source in SUBSTITUTES and root.holds_images():
        return root.place  # these sets are images alone, which need no archive or folder inside
    if not found and not key.path.endswith(_OPTIONAL):
        others = [name for name in candidates(key.name) if not name.endswith((".tar", ".tgz", ".bz2", ".xz"))]
        raise DataError(
            f"no {_names(key)} at this root, {root.described()}",
            where=f"{OPTIONS[source]}: {shown(root.location)}",
            hint=f"put it there{f' (or {others[-1]})' if others[1:] else ''}, or set {key.path}=...",
        )
    return found.get("*") if set(found) <= {"*"} else found


def _names(key: DataKey) -> str:
    return " or ".join(dict.fromkeys(key.files.values()))
