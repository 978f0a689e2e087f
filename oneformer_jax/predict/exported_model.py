"""An exported model, ready to use: what `load_model` gives for a checkpoint, without JAX."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.geometry import Geometry, Letterbox
from oneformer_jax.errors import EngineError
from oneformer_jax.postprocess.result import Result
from oneformer_jax.postprocess.thresholds import Thresholds
from oneformer_jax.predict.backend import Engine, EngineBackend
from oneformer_jax.predict.batch import predict_batch
from oneformer_jax.predict.onnx_runtime import Device, OnnxEngine
from oneformer_jax.predict.tensorrt_engine import SUFFIXES, TensorRTEngine
from oneformer_jax.tasks import Task, task_of


@dataclass(frozen=True)
class EngineModel:
    """An engine with its classes. Images of any size are fitted into its static one, aspect ratio kept."""

    engine: Engine

    @property
    def categories(self) -> Categories:
        return self.engine.metadata.categories

    @property
    def num_classes(self) -> int:
        return self.engine.metadata.num_classes

    @cached_property
    def backend(self) -> EngineBackend:
        """The evaluator's view of this model."""
        return EngineBackend(self.engine)

    @property
    def policy(self) -> Letterbox:
        """The one geometry that it takes."""
        return Letterbox(self.engine.metadata.image_size)

    def predict(
        self, image: UInt8[np.ndarray, "h w 3"], task: Task | str, thresholds: Thresholds | None = None
    ) -> Result:
        """The finished result for one RGB picture, at its own size.

        semantic: class indices (H, W); instance: instances, best first; panoptic: segment ids (H, W) with segments.
        Raises ValueError: unknown task.
        """
        geometry = self.policy(image.shape[:2])
        return self.predict_batch([image], task_of(task), [geometry], thresholds or Thresholds())[0]

    def predict_batch(
        self,
        images: Sequence[UInt8[np.ndarray, "_h _w 3"]],
        task: Task,
        geometries: Sequence[Geometry],
        thresholds: Thresholds,
    ) -> list[Result]:
        """`predict` for several pictures at once."""
        return predict_batch(self.backend, images, task, geometries, self.engine.metadata.is_thing, thresholds)


def open_model(path: Path | str, *, device: Device = "auto", device_id: int = 0) -> EngineModel:
    """Opens an exported `.onnx` file, or a TensorRT engine (`.engine`, `.plan`) with the JSON file beside it.

    Raises EngineError naming what is wrong with it.
    """
    path = Path(path)
    if path.suffix in SUFFIXES:
        return EngineModel(TensorRTEngine(path, device_id=device_id))
    if path.suffix != ".onnx":
        expected = f"expected a file .onnx, {' or '.join(SUFFIXES)}"
        raise EngineError("not the name of an exported model", where=str(path), hint=expected)
    return EngineModel(OnnxEngine(path, device=device, device_id=device_id))
