"""The keys that are not data: each has a function in `spec.skill` that finds its value."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from oneformer_jax.app.jobs.models import checkpoint_in, parent_models
from oneformer_jax.app.jobs.workspace import Job, Workspace
from oneformer_jax.app.spec import Spec
from oneformer_jax.app.spec.field import plain
from oneformer_jax.app.spec.published.skill import PRETRAINED_BACKBONE, parameters

KEY_VARIABLE = "ONEFORMER_ENCRYPTION_KEY"


@dataclass(frozen=True)
class Circumstances:
    """What the functions may look at. `named` are the keys that this job's command line sets, `spec` is all that is
    known without them: what the parent's user, a spec file and this command line say."""

    action: str
    job: Job
    workspace: Workspace
    parent: Job | None
    named: Collection[str]
    spec: Spec
    notes: list[str] = field(default_factory=list)


def parameter_values(about: Circumstances) -> dict[str, Any]:
    """The values by key. Raises CheckpointError where the parent's model is needed and is not there."""
    functions = parameters(about.action)
    values: dict[str, Any] = {}
    for name, find in _FUNCTIONS.items():
        keys = [path for path, function in functions.items() if function == name]
        # evaluate.checkpoint and evaluate.trt_engine are one choice: who names one wants nothing in the other.
        if keys and (name == "key" or not set(keys) & set(about.named)):
            values |= find(about, keys)
    return values


def pretrained_backbone(about: Circumstances, values: Mapping[str, Any]) -> dict[str, Any]:
    """The published backbone, for a new training that names no weights, if it is of the model's architecture."""
    path = "train.pretrained_backbone"
    weights = (path, "train.pretrained_model", "train.resume_training_checkpoint_path")
    if about.action != "train" or any(
        values.get(key) or about.spec.value(key) or key in about.named for key in weights
    ):
        return {}
    link, wanted = PRETRAINED_BACKBONE
    backbone = about.spec.model.backbone
    differs = [
        f"{name} is {plain(getattr(backbone.swin, name))}, not {plain(value)}"
        for name, value in wanted.items()
        if getattr(backbone.swin, name) != value
    ]
    if differs:
        about.notes.append(f"{path} stays empty: {link} does not fit: {differs[0]}")
        return {}
    about.notes.append(f"{path} is {link}; `{path}=` trains without it it it")
    return {path: link}


def quantize_backend(about: Circumstances, values: Mapping[str, Any]) -> dict[str, Any]:
    """The one backend that takes ONNX files, for a parent that left one."""
    path, backend = "quantize.backend", "modelopt.onnx"
    if not str(values.get("quantize.model_path", "")).endswith(".onnx") or about.spec.is_set(path):
        return {}
    about.notes.append(f"{path} is {backend}: the parent left an ONNX file")
    return {path: backend}


def _key(about: Circumstances, keys: list[str]) -> dict[str, Any]:
    """By way of the environment: an encryption key is written nowhere."""
    return {path: f"${{oc.env:{KEY_VARIABLE},''}}" for path in keys if about.spec.encryption_key}


def _output_dir(about: Circumstances, keys: list[str]) -> dict[str, Any]:
    return dict.fromkeys(keys, str(about.job.folder))


def _create_onnx_file(about: Circumstances, keys: list[str]) -> dict[str, Any]:
    return dict.fromkeys(keys, str(about.job.folder / about.action / "model.onnx"))


def _create_engine_file(about: Circumstances, keys: list[str]) -> dict[str, Any]:
    return dict.fromkeys(keys, str(about.job.folder / about.action / "model.engine"))


def _parent_model(about: Circumstances, keys: list[str]) -> dict[str, Any]:
    if about.parent is None:
        return {}
    return dict.fromkeys(keys, "") | parent_models(keys, about.parent, about.workspace)


def _resume_model(about: Circumstances, keys: list[str]) -> dict[str, Any]:
    newest = checkpoint_in(about.job.folder / about.action, ["latest"])
    return dict.fromkeys(keys, str(newest)) if newest else {}


def _ptm_if_no_resume_model(about: Circumstances, keys: list[str]) -> dict[str, Any]:
    if checkpoint_in(about.job.folder / about.action, ["latest"]) or about.parent is None:
        return {}
    return parent_models(keys, about.parent, about.workspace)


_FUNCTIONS: Mapping[str, Callable[[Circumstances, list[str]], dict[str, Any]]] = {
    "key": _key,
    "output_dir": _output_dir,
    "create_onnx_file": _create_onnx_file,
    "create_engine_file": _create_engine_file,
    "parent_model": _parent_model,
    "resume_model": _resume_model,
    "ptm_if_no_resume_model": _ptm_if_no_resume_model,
}
