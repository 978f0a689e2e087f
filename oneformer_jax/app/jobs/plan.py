"""What a job will run: its spec and record, from roots, parent, spec file and command line.

A key has the value that stands nearest to this job: on its command line, in the roots and models that the job found, in
the spec file, in what the parent's user gave, in the roots of the parent.
"""

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from oneformer_jax.app.automl.policy import SKILL, Policy, route_training
from oneformer_jax.app.jobs.inputs import (
    KEY_VARIABLE,
    Circumstances,
    data_values,
    parameter_values,
    pretrained_backbone,
    quantize_backend,
    source_of,
)
from oneformer_jax.app.jobs.workspace import Job, Record, Workspace
from oneformer_jax.app.spec import Spec, load_spec
from oneformer_jax.app.spec.automl_keys import LOSS
from oneformer_jax.app.spec.dotted import apply, get, merge, put, remove, rename_synonyms, without_secrets
from oneformer_jax.app.spec.load import load_source
from oneformer_jax.app.spec.published.schema import ACTIONS, MISSING
from oneformer_jax.app.spec.published.skill import SHORTHANDS, data_keys, parameters
from oneformer_jax.app.spec.source import Source, absolute, read_yaml
from oneformer_jax.app.spec.spec import withheld
from oneformer_jax.app.spec.tree import leaves
from oneformer_jax.errors import SpecError

VERSIONS = ("oneformer_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_KEY = re.compile(r"([+~]{0,2})([^=]*)")
# One of the keys must have a value, or the action has nothing to work on; and how to give it.
NEEDS: Mapping[str, Sequence[tuple[tuple[str, ...], str]]] = {
    "train": [(("dataset.train.annotations", "dataset.train.images"), "--train-dataset ROOT")],
    "evaluate": [
        (("dataset.test.annotations", "dataset.val.annotations"), "--eval-dataset ROOT"),
        (("evaluate.checkpoint", "evaluate.trt_engine"), "--parent JOB"),
    ],
    "inference": [
        (("inference.images_dir", "dataset.test.images"), "--inference-dataset ROOT"),
        (("inference.checkpoint", "inference.trt_engine"), "--parent JOB"),
    ],
    "export": [(("export.checkpoint",), "--parent JOB")],
    "quantize": [(("quantize.model_path",), "--parent JOB")],
    "gen_trt_engine": [(("gen_trt_engine.onnx_file",), "--parent JOB")],
}


@dataclass(frozen=True)
class Request:
    """What a person asks for. `datasets` are roots by source, `spec` a file to start from."""

    action: str
    datasets: Mapping[str, str] = field(default_factory=dict)
    parent: str = ""
    policy: Policy | None = None
    spec: Path | None = None
    overrides: Sequence[str] = ()


@dataclass(frozen=True)
class Plan:
    """The record of a job that has not begun, its spec, and what of that its user and those of the jobs before wrote.

    `secrets` stand in none of them: the spec takes them from these environment variables.
    """

    record: Record
    spec: dict[str, Any]
    given: dict[str, Any]
    secrets: Mapping[str, str] = field(default_factory=dict)


def make_plan(request: Request, workspace: Workspace, job: Job) -> Plan:
    """Finds everything that the action needs; nothing is written.

    Raises OneFormerError: an override or the spec file cannot be used, a root or the parent lacks what is needed.
    """
    action = request.action
    parent = workspace.job(request.parent) if request.parent else None
    before = parent.read() if parent else Record("", "")
    overrides = [_expanded(text) for text in request.overrides]
    named = named_keys(overrides)
    _refuse_result_folders(named)
    given = _given(parent, request.spec, overrides)
    spec = load_source(
        Source(copy.deepcopy(given.data), given.places, given.problems), str(request.spec or "command line")
    )

    own = {source: absolute(location) for source, location in request.datasets.items()}
    roots = {**before.datasets, **own}
    kept = [
        key.path
        for key in data_keys(action)
        if (value := get(given.data, key.path)) and value != MISSING and source_of(key, roots) not in own
    ]
    inputs, notes = data_values(action, roots, [*named, *kept], partial(get, given.data))
    about = Circumstances(action, job, workspace, parent, named, spec, notes)
    values = parameter_values(about)
    values |= pretrained_backbone(about, values) | quantize_backend(about, values)

    given.data.pop("encryption_key", None)
    for path in _found_otherwise(own, named):
        remove(given.data, path)
    content = copy.deepcopy(given.data)
    for path, value in {**inputs, **values}.items():
        put(content, path, value)
    complete = load_source(Source(copy.deepcopy(content)), "the spec of the job")
    _check_needs(action, complete.value)
    command, why = _command(request, complete)
    record = Record(
        action,
        command,
        parent=request.parent,
        lineage=[*before.lineage, request.parent] if parent else [],
        datasets=roots,
        overrides=[without_secrets(text) for text in overrides],
        inputs=inputs,
        values=values,
        notes=[*about.notes, *why],
        versions=_versions(),
    )
    found = {KEY_VARIABLE: spec.encryption_key} if spec.encryption_key else {}
    own_spec, secrets = withheld(content)
    passed_on, others = withheld(given.data)
    return Plan(record, own_spec, passed_on, {**others, **secrets, **found})


def resumed_spec(job: Job, record: Record) -> dict[str, Any]:
    """The spec of a job that runs again: it goes on from the newest checkpoint of its own, if there is one."""
    content = read_yaml(job.spec_path).data
    about = Circumstances(record.action, job, Workspace(job.folder.parent), None, (), load_spec(job.spec_path))
    functions = parameters(record.action)
    resumed = {path: value for path, value in parameter_values(about).items() if functions[path] == "resume_model"}
    pretrained = [path for path, function in functions.items() if function == "ptm_if_no_resume_model" and resumed]
    for path, value in {**dict.fromkeys(pretrained, ""), **resumed}.items():
        put(content, path, value)
    return content


def named_keys(overrides: Sequence[str]) -> set[str]:
    """The keys, and the sections above them, that overrides set, also where they set them to nothing."""
    source = Source({})
    for text in overrides:
        apply(source, text)
    return set(source.places)


def _expanded(text: str) -> str:
    """An override whose key is a shorthand, with the key that is meant."""
    match = _KEY.match(text)
    assert match is not None
    return f"{match[1]}{SHORTHANDS.get(match[2], match[2])}{text[match.end() :]}"


def _command(request: Request, spec: Spec) -> tuple[str, list[str]]:
    """The command of the action, and for a training why it is this one: a search, unless that is off or cannot run."""
    if request.action != "train":
        if request.policy is not None:
            raise SpecError(
                "--automl-policy is for training alone", hint=f"leave it out: job {request.action} has no trials"
            )
        return request.action, []
    policy: Policy = request.policy or spec.automl_policy or "auto"
    route = route_training(policy, Path(spec.automl.skill_dir) if spec.automl.skill_dir else SKILL)
    scored = spec.dataset.val.has_data or spec.automl.metric == LOSS
    if route.command == "automl" and policy == "auto" and not scored:
        return "train", [
            f"AutoML has no --eval-dataset to score trials by {spec.automl.metric}: running a single training"
        ]
    return route.command, [route.reason]


def _refuse_result_folders(named: set[str]) -> None:
    for path in sorted(named):
        if path.rpartition(".")[2] == "results_dir":
            raise SpecError("a job writes to its own folder", where=path, hint="use --workspace to choose the location")


def _given(parent: Job | None, spec: Path | None, overrides: Sequence[str]) -> Source:
    """What the parent's user gave, under a spec file and overrides, each key with the place where it is written."""
    given = Source(read_yaml(parent.given_path).data if parent else {})
    if spec:
        written = read_yaml(spec)
        rename_synonyms(written)
        merge(given.data, written.data)
        given.places.update(written.places)
        given.problems.extend(written.problems)
    for text in overrides:
        apply(given, text)
    rename_synonyms(given)
    for leaf in leaves(Spec):
        if leaf.key.location and (value := get(given.data, leaf.path)):
            put(given.data, leaf.path, absolute(value))
    return given


def _found_otherwise(own: Mapping[str, str], named: set[str]) -> Iterator[str]:
    """Keys of a spec file that do not hold for jobs: folders of results, and data for which there is a root now."""
    yield from ("results_dir", "automl.results_dir", *(f"{action}.results_dir" for action in ACTIONS))
    for action in ACTIONS:
        yield from (key.path for key in data_keys(action) if source_of(key, own) and key.path not in named)


def _check_needs(action: str, value: Callable[[str], Any]) -> None:
    for paths, option in NEEDS[action]:
        if not any(map(value, paths)):
            raise SpecError(f"job {action} has no {' or '.join(paths)}", hint=f"give {option}, or set {paths[0]}=...")


def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for name in VERSIONS:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
