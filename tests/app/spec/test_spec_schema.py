"""The schemas, templates and skill information beside TAO's published ones, attribute by attribute."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from oneformer_jax.app.spec import Spec
from oneformer_jax.app.spec.published.bundle import bundle, deployment_info
from oneformer_jax.app.spec.published.schema import ACTIONS, DEPLOYMENT, deployment_template, manifest, schema, template
from oneformer_jax.app.spec.published.skill import FILES, INPUTS, PARAMETERS, SHORTHANDS, skill_info
from oneformer_jax.app.spec.tree import leaves

ABSENT = "(absent)"
UNORDERED = ("popular", "automl_default_parameters", "automl_disabled_parameters")
PATHS = {leaf.path for leaf in leaves(Spec)}


@dataclass(frozen=True)
class Difference:
    """Where two files differ: names from the root, TAO's value and ours."""

    names: tuple[str, ...]
    published: Any
    ours: Any

    @property
    def place(self) -> str:
        return "/".join(self.names)


# Why a published schema and ours may differ, and which differences that explains.
REASONS: dict[str, Callable[[Difference], bool]] = {
    "descriptions are our own words": lambda found: found.names[-1] == "description",
    "keys beyond TAO's are marked": lambda found: isinstance(found.ours, dict) and "x_extension" in found.ours,
    "a list among the properties is no property; the same names stand at the root": lambda found: (
        found.names == ("properties", "automl_disabled_parameters") and found.ours == ABSENT
    ),
    "the source is this project": lambda found: found.names == ("x_tao_schema", "source"),
}


def differences(published: Any, ours: Any, names: tuple[str, ...] = ()) -> Iterator[Difference]:
    if isinstance(published, dict) and isinstance(ours, dict):
        for name in sorted({*published, *ours}):
            yield from differences(published.get(name, ABSENT), ours.get(name, ABSENT), (*names, name))
        return
    if names[-1] in UNORDERED and isinstance(published, list) and isinstance(ours, list):
        published, ours = sorted(published), sorted(ours)
    if published != ours or isinstance(published, bool) != isinstance(ours, bool):
        yield Difference(names, published, ours)


@pytest.fixture(scope="module")
def skill(shared: Path) -> Path:
    return shared / "reference" / "tao_skill"


def test_schemas_are_the_published_ones_but_for_the_reasons_above(skill: Path) -> None:
    found = [
        difference
        for action in ACTIONS
        for difference in differences(
            json.loads((skill / "schemas" / f"{action}.schema.json").read_text()), schema(action)
        )
    ]
    unexplained = [difference for difference in found if not any(explains(difference) for explains in REASONS.values())]
    assert unexplained == []
    assert len(REASONS) <= 10
    for reason, explains in REASONS.items():
        assert any(map(explains, found)), f"no difference left: {reason}"


@pytest.mark.slow
def test_manifest_and_files_are_the_published_ones(skill: Path) -> None:
    assert list(differences(json.loads((skill / "schemas" / "manifest.json").read_text()), manifest())) == []
    published = {str(path.relative_to(skill)) for path in skill.rglob("*.*")}
    assert set(bundle()) - published == {"references/tao-deploy-oneformer.md"}  # a text of our own
    assert published <= set(bundle())


def test_templates_are_the_published_ones(skill: Path) -> None:
    for action in ACTIONS:
        text = (skill / "references" / f"spec_template_{action}.yaml").read_text()
        assert template(action) == yaml.safe_load(text)
        assert list(template(action)) == list(yaml.safe_load(text))


def test_deployment_templates_differ_in_paths_only(skill: Path) -> None:
    for action in DEPLOYMENT:
        text = (skill / "references" / f"spec_template_deploy_{action}.yaml").read_text()
        for difference in differences(yaml.safe_load(text), deployment_template(action)):
            assert difference.ours == "???", difference
            assert difference.published[0] in "/<", difference


def test_skill_information_asks_for_what_the_published_one_asks_for(skill: Path) -> None:
    ours = skill_info()
    published = yaml.safe_load((skill / "references" / "skill_info.yaml").read_text())
    deployment = yaml.safe_load((skill / "references" / "tao-deploy-oneformer.skill_info.yaml").read_text())
    for part in ("actions", "spec_params", "spec_templates", "spec_shorthand_keys"):
        own = {name: value for name, value in ours[part].items() if name in published[part]}
        found = [difference.names[-1] for difference in differences(published[part], own, (part,))]
        assert set(found) <= {"command"}
    own = deployment_info()
    for part in ("actions", "spec_params", "data_sources", "spec_shorthand_keys", "spec_templates"):
        assert own[part] == deployment[part]
    for part in ("actions", "spec_params"):
        own = ours[part]["gen_trt_engine"]
        found = [difference.names[-1] for difference in differences(deployment[part]["gen_trt_engine"], own, (part,))]
        assert set(found) <= {"command"}
    assert ours["data_sources"] == published["data_sources"]
    for name in ("network_arch", "automl_enabled", "data_format", "gpu_spec_key", "key_defaults"):
        assert ours[name] == published[name]


def test_skill_information_names_keys_that_exist() -> None:
    named = [*SHORTHANDS.values()]
    for action in ACTIONS:
        named += [*INPUTS[action], *PARAMETERS[action]]
    assert set(named) <= PATHS
    assert {path.rpartition(".")[2] for path in PATHS} > set(FILES)


@pytest.mark.slow
def test_every_schema_is_strict_json_in_which_only_own_keys_are_marked() -> None:
    for name, text in bundle().items():
        if not name.endswith(".schema.json"):
            continue
        found = json.loads(text, parse_constant=pytest.fail)
        assert found == schema(name.removeprefix("schemas/").removesuffix(".schema.json"))  # infinity included
        action = name.removeprefix("schemas/").removesuffix(".schema.json")
        marked = set(extensions(found["properties"], ""))
        expected = {leaf.path for leaf in leaves(Spec) if leaf.extension}
        others = tuple(f"{other}." for other in ACTIONS if other not in (action, "train", "quantize"))
        assert marked == {path for path in expected if not path.startswith(others)}
        assert not any(path in json.dumps(found["default"]) for path in ("checkpoint_keep", "flip_prob"))


def extensions(properties: dict[str, Any], prefix: str) -> Iterator[str]:
    for name, node in properties.items():
        if "properties" in node:
            yield from extensions(node["properties"], f"{prefix}{name}.")
        elif node.get("x_extension"):
            yield prefix + name
