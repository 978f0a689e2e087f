"""Whether a training goes through AutoML: the policy of the run, and what the skill folder says and holds."""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

Policy = Literal["auto", "on", "off"]
SKILL = Path(__file__).resolve().parents[2] / "configs" / "skill"
_NEEDED = ("schemas/train.schema.json", "references/spec_template_train.yaml")


@dataclass(frozen=True)
class Route:
    """The command that a training runs, and why."""

    command: Literal["train", "automl"]
    reason: str


def route_training(policy: Policy, skill: Path = SKILL) -> Route:
    """AutoML unless the policy is off, the model is not enabled for it, or it cannot run: then the training alone.

    `skill` is the folder with skill_info.yaml among its references, and with the schema and the template of training.
    """
    if policy == "off":
        return Route("train", "AutoML is off: trained directly")
    info = _mapping(skill / "references" / "skill_info.yaml")
    if info is None or info.get("automl_enabled") is not True:
        return Route("train", f"AutoML is not enabled in {skill / 'references' / 'skill_info.yaml'}: trained directly")
    absent = [name for name in _NEEDED if _mapping(skill / name) is None]
    if absent:
        return Route(
            "train",
            f"AutoML is enabled but cannot run until `python cli.py schema --output {skill}` has written "
            f"{' and '.join(absent)}: trained directly",
        )
    if importlib.util.find_spec("oneformer_jax.automl") is None:
        return Route("train", "AutoML is not there yet: trained directly")
    return Route("automl", f"AutoML (policy {policy})")


def _mapping(path: Path) -> dict[str, object] | None:
    """The content of a JSON or YAML file, None where it is missing or does not parse."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return content if isinstance(content, dict) else None
