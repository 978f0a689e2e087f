"""Whether a training goes through AutoML: the policy of the run, what the skill folder says and holds, and what is
installed. Nothing here needs Optuna."""

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from rich.console import Console

from oneformer_jax.app.run.children import CONFIGS
from oneformer_jax.app.spec import load_spec
from oneformer_jax.app.spec.published.schema import schema
from oneformer_jax.app.spec.published.skill import skill_info
from oneformer_jax.errors import OneFormerError, SpecError, install_hint

Policy = Literal["auto", "on", "off"]
SKILL = CONFIGS / "skill"
INFORMATION, SCHEMA, TEMPLATE = (
    "references/skill_info.yaml",
    "schemas/train.schema.json",
    "references/spec_template_train.yaml",
)


@dataclass(frozen=True)
class Route:
    """The command that a training runs, and why."""

    command: Literal["train", "automl"]
    reason: str


def route_training(policy: Policy, skill: Path | None = SKILL) -> Route:
    """AutoML unless the policy is off, the model is not enabled for it, or it cannot run: then the training alone.

    `skill` is the folder with skill_info.yaml among its references, and with the schema and the template of training;
    None: what this project would write there. Without Optuna `auto` trains directly, `on` raises OneFormerError.
    """
    if policy == "off":
        return Route("train", "AutoML is off: running a single training")
    info = skill_info() if skill is None else _mapping(skill / INFORMATION)
    if info is None or info.get("automl_enabled") is not True:
        place = INFORMATION if skill is None else skill / INFORMATION
        return Route("train", f"AutoML is not enabled in {place}: running a single training")
    absent = [name for name in (SCHEMA, TEMPLATE) if skill is not None and _mapping(skill / name) is None]
    if absent:
        return Route(
            "train",
            f"AutoML is enabled but cannot run until `oneformer schema --output {skill}` has written "
            f"{' and '.join(absent)}: running a single training",
        )
    try:
        require_optuna()
    except OneFormerError as error:
        if policy == "on":
            raise
        return Route("train", f"{error.what} ({error.hint}): running a single training")
    return Route("automl", f"AutoML (policy {policy})")


def action_for_training(spec_path: Path, overrides: list[str], policy: Policy | None, console: Console) -> str:
    """`automl` where the policy, given or else the spec's, asks for a search that can run; `train` otherwise.

    Where one of them says anything, it is told which. What is wrong is left to the action, which writes FAILURE.
    """
    try:
        spec = load_spec(spec_path, overrides)
    except SpecError:
        return "train"
    asked = policy or spec.automl_policy
    if not asked:
        return "train"
    try:
        found = route_training(asked, Path(spec.automl.skill_dir) if spec.automl.skill_dir else None)
    except OneFormerError:
        return "automl"
    console.print(found.reason)
    return found.command


def train_schema(skill: Path | None) -> Mapping[str, Any]:
    """The schema that says what a search may vary. Raises OneFormerError where it is missing or is none."""
    if skill is None:
        return schema("train")
    found = _mapping(skill / SCHEMA)
    if found is None or not isinstance(found.get("properties"), dict):
        raise OneFormerError(
            "no schema can be read",
            where=str(skill / SCHEMA),
            hint=f"`oneformer schema --output {skill}` writes it, or leave automl.skill_dir empty",
        )
    return found


def require_optuna() -> None:
    """Raises OneFormerError where the extra is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise OneFormerError("AutoML needs Optuna, which is not installed", hint=install_hint("automl"))


def _mapping(path: Path) -> dict[str, Any] | None:
    """The content of a JSON or YAML file, None where it is missing or does not parse."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return content if isinstance(content, dict) else None
