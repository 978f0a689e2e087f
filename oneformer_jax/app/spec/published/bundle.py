"""The files that describe this project to TAO's tools: schemas, manifest, spec templates, skill information."""

import json
import re
from typing import Any

import yaml

from oneformer_jax.app.spec.published.schema import manifest, schema
from oneformer_jax.app.spec.published.skill import skill_info
from oneformer_jax.app.spec.published.template import ACTIONS, DEPLOYMENT, deployment_template, template


def bundle() -> dict[str, str]:
    """The text of every file, by its path below the folder."""
    return {
        **{f"schemas/{action}.schema.json": _json(schema(action)) for action in ACTIONS},
        "schemas/manifest.json": _json(manifest()),
        **{f"references/spec_template_{action}.yaml": to_yaml(template(action)) for action in ACTIONS},
        **{f"references/spec_template_deploy_{name}.yaml": to_yaml(deployment_template(name)) for name in DEPLOYMENT},
        "references/skill_info.yaml": to_yaml(skill_info()),
    }


def to_yaml(data: dict[str, Any]) -> str:
    """Plain data as YAML in the order of the keys."""
    return yaml.safe_dump(data, sort_keys=False, width=120)


def _json(data: dict[str, Any]) -> str:
    """Strict JSON, keys sorted as in the published files. It has no word for infinity, but a number that reads as it:
    for TAO's search "no upper bound" and a bound that is not there are different ranges."""
    return re.sub(r"(?m): Infinity(,?)$", r": 1e999\1", json.dumps(data, indent=2, sort_keys=True)) + "\n"
