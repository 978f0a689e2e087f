"""What evaluate and inference run: a checkpoint in JAX, or an exported model without it. One face for both."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.spec import Spec, require
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.geometry import Geometry, Letterbox
from oneformer_jax.errors import SpecError
from oneformer_jax.evaluation.evaluator import Backend
from oneformer_jax.postprocess.result import Result
from oneformer_jax.postprocess.thresholds import Thresholds
from oneformer_jax.predict.exported_model import open_model
from oneformer_jax.tasks import Task


@runtime_checkable
class Model(Protocol):
    """A checkpoint or an exported model in memory."""

    @property
    def categories(self) -> Categories: ...

    @property
    def num_classes(self) -> int: ...

    @property
    def backend(self) -> Backend: ...

    def predict_batch(
        self,
        images: Sequence[UInt8[np.ndarray, "_h _w 3"]],
        task: Task,
        geometries: Sequence[Geometry],
        thresholds: Thresholds,
    ) -> list[Result]: ...


@dataclass(frozen=True)
class ModelToRun:
    """`batch_size` is that of all devices together; `policy` is the one geometry that an engine takes."""

    model: Model
    batch_size: int
    policy: Letterbox | None = None


def require_model(spec: Spec, action: str) -> None:
    """Raises SpecError unless there is an engine or a checkpoint to run."""
    if not spec.value(action).trt_engine:
        require(spec, f"{action}.checkpoint")


def model_to_run(spec: Spec, action: str, default_batch_size: int, status: StatusFile) -> ModelToRun:
    """Opens `<action>.trt_engine` where it is set, else `<action>.checkpoint`.

    `<action>.batch_size` counts the images of one device; where it is -1 there are `default_batch_size`, or what an
    engine takes that comes next to it. Raises OneFormerError.
    """
    section = spec.value(action)
    if not section.trt_engine:
        from oneformer_jax.app.run.checkpoint import checkpoint_to_run  # imports JAX

        asked = section.batch_size if section.batch_size > 0 else default_batch_size
        return checkpoint_to_run(spec, action, asked, status)
    if section.checkpoint:
        status.warning(f"{action}.trt_engine and {action}.checkpoint are both set: the engine counts")
    if section.num_gpus > 1 or len(section.gpu_ids) > 1:
        raise SpecError("an engine runs on one device", where=f"{action}.num_gpus", hint="set it to 1")
    engine = open_model(section.trt_engine, device_id=section.gpu_ids[0])
    smallest, largest = engine.engine.batch_sizes
    if section.batch_size > 0:
        engine.backend.check_batch_size(section.batch_size)
        return ModelToRun(engine, section.batch_size, engine.policy)
    fitting = max(default_batch_size, smallest)
    return ModelToRun(engine, fitting if largest is None else min(fitting, largest), engine.policy)
