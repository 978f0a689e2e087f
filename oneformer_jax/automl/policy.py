"""Whether a training is a search, and whether a search can run. Nothing here needs Optuna."""

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from oneformer_jax.errors import OneFormerError
from oneformer_jax.spec.schema import schema
from oneformer_jax.spec.skill import skill_info

Policy = Literal["", "auto", "on", "off"]
SCHEMA, TEMPLATE, INFORMATION = (
    "schemas/train.schema.json",
    "references/spec_template_train.yaml",
    "references/skill_info.yaml",
)


@dataclass(frozen=True)
class Route:
    """`search`: the training goes through a search; `why` it does not although the policy asks for one, else ""."""

    search: bool
    why: str = ""


def route(policy: Policy, skill: Path | None = None) -> Route:
    """What the policy comes to. `skill`: a folder with TAO's files; None: what this project says of itself.

    auto and on: a search where the model is enabled for it and its train schema and template can be read; where not,
    the training is direct and the reason is told. Without Optuna auto is direct too, on an error (OneFormerError).
    """
    if policy in ("", "off"):
        return Route(False)
    try:
        if not _is_enabled(skill):
            return Route(False, "AutoML is not enabled for this model")
        train_schema(skill)
        if skill is not None:
            _read(skill / TEMPLATE)
    except OneFormerError as error:
        return Route(False, f"AutoML is not runnable for this model: {error}")
    try:
        require_optuna()
    except OneFormerError as error:
        if policy == "on":
            raise
        return Route(False, str(error))
    return Route(True)


def train_schema(skill: Path | None) -> Mapping[str, Any]:
    """The schema that says what a search may vary. Raises OneFormerError where it is missing or is none."""
    if skill is None:
        return schema("train")
    found = _read(skill / SCHEMA)
    if not isinstance(found.get("properties"), Mapping):
        raise OneFormerError("this is no schema: it has no properties", where=str(skill / SCHEMA))
    return found


def require_optuna() -> None:
    """Raises OneFormerError where the extra is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise OneFormerError("AutoML needs Optuna, which is not installed", hint="pip install 'oneformer_jax[automl]'")


def _is_enabled(skill: Path | None) -> bool:
    information = skill_info() if skill is None else _read(skill / INFORMATION)
    return information.get("automl_enabled") is True


def _read(path: Path) -> Mapping[str, Any]:
    """A mapping from a JSON or YAML file."""
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise OneFormerError(error.strerror or "cannot be read", where=str(path)) from None
    except (ValueError, yaml.YAMLError) as error:
        raise OneFormerError(f"cannot be parsed: {error}", where=str(path)) from None
    if not isinstance(found, Mapping):
        raise OneFormerError("cannot be parsed: it holds no mapping", where=str(path))
    return found
