"""The models that jobs leave, and the one that a key of the next job means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from oneformer_jax.app.jobs.workspace import Job, Record, Workspace
from oneformer_jax.app.spec import load_spec
from oneformer_jax.app.spec.published.skill import parameters
from oneformer_jax.errors import CheckpointError

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


@dataclass(frozen=True)
class Model:
    """A model on disk; a checkpoint is a folder."""

    kind: Kind
    path: Path


def parent_models(keys: Sequence[str], parent: Job, workspace: Workspace) -> dict[str, str]:
    """The value for those of `keys` (each means the parent's model) that take the kind of model the parent left.

    A job that leaves no model stands for the one that it used, so its own parent is asked. Raises CheckpointError that
    names the parent's folder and what it holds, where there is no model or one that no key takes.
    """
    job, record = parent, parent.read()
    while record.action in WITHOUT_MODEL and record.parent:
        job = workspace.job(record.parent)
        record = job.read()
    model = model_of(job, record)
    taken = [key for key in keys if model is not None and model.kind in TAKES[key]]
    if model is None or not taken:
        wanted = dict.fromkeys(WORDS[kind] for key in keys for kind in TAKES[key])
        raise CheckpointError(
            f"{', '.join(keys)}: job {job.id} left no {' or '.join(wanted)}; "
            f"{_holds(job.results(record))}{_end(record)}",
            where=str(job.results(record)),
            hint=f"name another job in --parent, or set {keys[0]}=...",
        )
    return {key: str(model.path) for key in taken}


def model_of(job: Job, record: Record) -> Model | None:
    """The model that a job left: a training's best checkpoint (else its newest), or the file that its action writes."""
    folder = job.results(record)
    named = _file_of(job, record)
    if named:
        path = Path(named)
        return Model(SUFFIXES.get(path.suffix, "onnx"), path) if path.is_file() else None
    if (checkpoint := checkpoint_in(folder)) is not None:
        return Model("checkpoint", checkpoint)
    files = [path for path in sorted(folder.glob("*")) if path.suffix in SUFFIXES and path.is_file()]
    return Model(SUFFIXES[files[0].suffix], files[0]) if len(files) == 1 else None


def _file_of(job: Job, record: Record) -> str:
    """The file that the action was asked to write, "" for an action that writes none of a chosen name."""
    keys = [path for path, function in parameters(record.action).items() if function.startswith("create_")]
    return str(load_spec(job.spec_path).value(keys[0])) if keys else ""


def checkpoint_in(folder: Path, names: Sequence[str] = CHECKPOINTS) -> Path | None:
    """The first of `names` in a result folder that is a checkpoint."""
    paths = [folder / name for name in names]
    return next((path for path in paths if (path / "params").is_dir() and (path / "description").is_dir()), None)


def _holds(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []
    return f"its folder holds {', '.join(names[:12])}" if names else "its folder is empty"


def _end(record: Record) -> str:
    return "" if record.status == "SUCCESS" else f"; it ended with {record.status}: {record.message or 'no message'}"
