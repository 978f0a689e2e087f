"""What a job finds for the keys of its action, by the tables in `spec.skill`: files of data sets by their roots, the
models that the jobs before it left, and for each other key the value that the function named there has.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from oneformer_jax.app.jobs.workspace import Job, Record, Workspace
from oneformer_jax.app.spec import Spec, load_spec
from oneformer_jax.app.spec.field import plain
from oneformer_jax.app.spec.published.skill import (
    FILES,
    LABEL_MAPS,
    PRETRAINED_BACKBONE,
    SUBSTITUTES,
    DataKey,
    data_keys,
    parameters,
)
from oneformer_jax.data.datasets.dataset_root import DatasetRoot, candidates, open_root
from oneformer_jax.data.storage.addresses import shown
from oneformer_jax.data.storage.folders import entries
from oneformer_jax.errors import CheckpointError, DataError

OPTIONS = {
    "train_datasets": "--train-dataset",
    "eval_dataset": "--eval-dataset",
    "inference_dataset": "--inference-dataset",
    "calibration_dataset": "--calibration-dataset",
}
# The folders of splits, as `import` writes them, of which one is meant where the folder around them is named.
_SPLITS = {
    "train_datasets": ("train",),
    "eval_dataset": ("val", "test"),
    "inference_dataset": ("test", "val"),
    "calibration_dataset": ("train", "val"),
}
# What a data set may do without: COCO instances have no PNGs, and names stand in the annotations too.
_NAMES = "label_map"
_OPTIONAL = ("panoptic", _NAMES)
_KNOWN = {*FILES.values(), *(name for files in LABEL_MAPS.values() for name in files.values())}

Kind = Literal["checkpoint", "onnx", "engine"]
SUFFIXES: Mapping[str, Kind] = {".onnx": "onnx", ".engine": "engine", ".plan": "engine"}
WORDS: Mapping[Kind, str] = {"checkpoint": "checkpoint", "onnx": "ONNX file", "engine": "TensorRT engine"}
# The model that a key takes.
TAKES: Mapping[str, tuple[Kind, ...]] = {
    "train.pretrained_model": ("checkpoint",),
    "evaluate.checkpoint": ("checkpoint",),
    "evaluate.trt_engine": ("engine", "onnx"),
    "inference.checkpoint": ("checkpoint",),
    "inference.trt_engine": ("engine", "onnx"),
    "export.checkpoint": ("checkpoint",),
    "quantize.model_path": ("checkpoint", "onnx"),
    "gen_trt_engine.onnx_file": ("onnx",),
}
# The checkpoints that a job may leave, the best first: of a training or a search, of quantize.
CHECKPOINTS = ("best", "latest", "quantized_model/latest")
WITHOUT_MODEL = ("evaluate", "inference")
KEY_VARIABLE = "ONEFORMER_ENCRYPTION_KEY"
# The functions of `spec.skill.parameters`, in the order in which their values stand in the record.
FUNCTIONS = (
    *("key", "output_dir", "create_onnx_file", "create_engine_file"),
    *("parent_model", "resume_model", "ptm_if_no_resume_model"),
)


def source_of(key: DataKey, roots: Collection[str]) -> str | None:
    """The source, of those that have a root, whose file becomes the value of a key; None: there is none."""
    return next((source for source in (key.source, SUBSTITUTES.get(key.source)) if source in roots), None)


def data_values(
    action: str, roots: Mapping[str, str], named: Collection[str], written: Callable[[str], Any] = lambda path: None
) -> tuple[dict[str, Any], list[str]]:
    """The values of the data keys of an action, without those that are `named` already, and what was not there.

    `roots` are locations by source; a source without one takes the place that `SUBSTITUTES` says, or its keys stay
    unset. Where a root has no label map, the one that is `written` in the spec holds.

    Raises DataError: a root cannot be used, or has no images or no annotations.
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
        elif key.path.endswith(_NAMES) and (stays := written(key.path)):
            values[key.path] = stays
            notes.append(f"{key.path} stays as the spec says: no {_names(key)} at {shown(roots[source])}")
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
        split = next((name for name in _SPLITS[source] if name in (root.names or ())), "")
        hint = f"put it there{f' (or {others[-1]})' if others[1:] else ''}, or set {key.path}=..."
        raise DataError(
            f"no {_names(key)} at this root, {root.described()}",
            where=f"{OPTIONS[source]}: {shown(root.location)}",
            hint=f"name one split: {OPTIONS[source]} {shown(root.at(split))}" if split else hint,
        )
    return found.get("*") if set(found) <= {"*"} else found


def _names(key: DataKey) -> str:
    return " or ".join(dict.fromkeys(key.files.values()))


def parent_models(keys: Sequence[str], parent: Job, workspace: Workspace) -> dict[str, str]:
    """The value for those of `keys` (each means the parent's model) that take the kind of model the parent left.

    A job that leaves no model stands for the one that it used, so its own parent is asked. Raises CheckpointError that
    names the parent's folder and what it holds, where there is no model or one that no key takes.
    """
    job, record = parent, parent.read()
    asked = {parent.id}
    while record.action in WITHOUT_MODEL and record.parent:
        if record.parent in asked:
            what = f"the parents of job {parent.id} lead back to job {record.parent}"
            raise CheckpointError(what, where=str(job.record_path), hint="the record is damaged: name another job")
        asked.add(record.parent)
        job = workspace.job(record.parent)
        record = job.read()
    model = model_of(job, record)
    taken = [key for key in keys if model is not None and model[0] in TAKES[key]]
    if model is None or not taken:
        wanted = dict.fromkeys(WORDS[kind] for key in keys for kind in TAKES[key])
        ending = (
            "" if record.status == "SUCCESS" else f"; it ended with {record.status}: {record.message or 'no message'}"
        )
        raise CheckpointError(
            f"{', '.join(keys)}: job {job.id} left no {' or '.join(wanted)}; {_holds(job.results(record))}{ending}",
            where=str(job.results(record)),
            hint=f"name another job in --parent, or set {keys[0]}=...",
        )
    return dict.fromkeys(taken, str(model[1]))


def model_of(job: Job, record: Record) -> tuple[Kind, Path] | None:
    """The model that a job left: a training's best checkpoint (else its newest), or the file that its action writes,
    which may have been asked for under a name of its own."""
    folder = job.results(record)
    keys = [path for path, function in parameters(record.action).items() if function.startswith("create_")]
    if keys and (named := load_spec(job.spec_path).value(keys[0])):
        path = Path(named)
        return (SUFFIXES.get(path.suffix, "onnx"), path) if path.is_file() else None
    if (checkpoint := checkpoint_in(folder)) is not None:
        return "checkpoint", checkpoint
    shown = entries(folder) if folder.is_dir() else []
    files = [path for path in shown if path.suffix in SUFFIXES and path.is_file()]
    return (SUFFIXES[files[0].suffix], files[0]) if len(files) == 1 else None


def checkpoint_in(folder: Path, names: Sequence[str] = CHECKPOINTS) -> Path | None:
    """The first of `names` in a result folder that is a checkpoint."""
    paths = [folder / name for name in names]
    return next((path for path in paths if (path / "params").is_dir() and (path / "description").is_dir()), None)


def _holds(folder: Path) -> str:
    names = [path.name for path in entries(folder)] if folder.is_dir() else []
    return f"its folder holds {', '.join(names[:12])}" if names else "its folder is empty"


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
    folder = about.job.folder / about.action
    newest = checkpoint_in(folder, ["latest"])
    values: dict[str, Any] = {}
    for name in FUNCTIONS:
        keys = [path for path, function in functions.items() if function == name]
        # evaluate.checkpoint and evaluate.trt_engine are one choice: who names one wants nothing in the other.
        if not keys or (name != "key" and set(keys) & set(about.named)):
            continue
        match name:
            case "key" if about.spec.encryption_key:  # by way of the environment: it is written nowhere
                values |= dict.fromkeys(keys, f"${{oc.env:{KEY_VARIABLE},''}}")
            case "output_dir":
                values |= dict.fromkeys(keys, str(about.job.folder))
            case "create_onnx_file":
                values |= dict.fromkeys(keys, str(folder / "model.onnx"))
            case "create_engine_file":
                values |= dict.fromkeys(keys, str(folder / "model.engine"))
            case "parent_model" if about.parent is not None:
                values |= dict.fromkeys(keys, "") | parent_models(keys, about.parent, about.workspace)
            case "resume_model" if newest is not None:
                values |= dict.fromkeys(keys, str(newest))
            case "ptm_if_no_resume_model" if about.parent is not None and newest is None:
                values |= parent_models(keys, about.parent, about.workspace)
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
    differs = [] if backbone.name == "D2SwinTransformer" else [f"the backbone is {backbone.name}"]
    differs += [
        f"{name} is {plain(getattr(backbone.swin, name))}, not {plain(value)}"
        for name, value in wanted.items()
        if getattr(backbone.swin, name) != value
    ]
    if differs:
        about.notes.append(f"{path} stays empty: {link} does not fit: {differs[0]}")
        return {}
    about.notes.append(f"{path} is {link}; `{path}=` trains without it")
    return {path: link}


def quantize_backend(about: Circumstances, values: Mapping[str, Any]) -> dict[str, Any]:
    """The one backend that takes ONNX files, for a parent that left one."""
    path, backend = "quantize.backend", "modelopt.onnx"
    if not str(values.get("quantize.model_path", "")).endswith(".onnx") or about.spec.is_set(path):
        return {}
    about.notes.append(f"{path} is {backend}: the parent left an ONNX file")
    return {path: backend}
