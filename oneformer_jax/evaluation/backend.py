"""What an evaluation and a predictor ask of whatever computes predictions."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from oneformer_jax.data.geometry import Geometry
from oneformer_jax.postprocess.results import Result, Thresholds, finished_result
from oneformer_jax.tasks import Task

BatchLogits = tuple[Float[np.ndarray, "b q k1"], Float[np.ndarray, "b q h4 w4"]]
Pending = Callable[[], Result]
"""What is left to do for an image, on any thread."""


@dataclass(frozen=True)
class Asked:
    """What is asked of images: results of these tasks. `is_thing` of each class of the backend."""

    tasks: Sequence[Task]
    is_thing: Bool[np.ndarray, " k"]
    thresholds: Thresholds


@runtime_checkable
class Backend(Protocol):
    """Whatever turns images into logits: the JAX model, ONNX Runtime, TensorRT. `num_classes` are those it tells
    apart."""

    @property
    def num_classes(self) -> int: ...

    def predict(
        self, images: UInt8[np.ndarray, "b h w 3"], sizes: Int[np.ndarray, "b 2"], tasks: Sequence[Task]
    ) -> dict[Task, BatchLogits]:
        """Class logits (B, Q, K + 1) and mask logits (B, Q, h, w) for each task; features of the images are
        computed once. `sizes` are the resized (height, width) inside the padded images."""
        ...


@runtime_checkable
class DecidingBackend(Backend, Protocol):
    """A backend that post-processes on its device, where logits then stay."""

    def decide(
        self, images: UInt8[np.ndarray, "b h w 3"], geometries: Sequence[Geometry], asked: Asked
    ) -> list[Pending]:
        """As `pending_results`. Returns before the device has done it; waiting for that is left to do, too."""
        ...


@runtime_checkable
class CompilingBackend(Backend, Protocol):
    """A backend that compiles a program for each shape of a batch."""

    def compiling_ahead(self, batches: Sequence[Sequence[Geometry]], asked: Asked) -> AbstractContextManager[None]:
        """As the function `compiling_ahead`."""
        ...

    @property
    def compiled(self) -> tuple[int, int]:
        """How many shapes are compiled, of how many that are known to come."""
        ...


def compiling_ahead(
    backend: Backend, batches: Sequence[Sequence[Geometry]], asked: Asked
) -> AbstractContextManager[None]:
    """Compiles inside, in threads, what batches of these images will need, where a backend has something to compile."""
    if isinstance(backend, CompilingBackend):
        return backend.compiling_ahead(batches, asked)
    return nullcontext()


def pending_results(
    backend: Backend,
    images: UInt8[np.ndarray, "b h w 3"],
    geometries: Sequence[Geometry],
    asked: Asked,
) -> list[Pending]:
    """The results of padded images, one each."""
    if isinstance(backend, DecidingBackend):
        return backend.decide(images, geometries, asked)
    logits = backend.predict(images, resized_sizes(geometries), asked.tasks)
    return [
        partial(
            finished_result,
            {task: (classes[row], masks[row]) for task, (classes, masks) in logits.items()},
            geometry,
            asked.is_thing,
            asked.thresholds,
        )
        for row, geometry in enumerate(geometries)
    ]


def resized_sizes(geometries: Sequence[Geometry]) -> Int[np.ndarray, "b 2"]:
    """The (height, width) inside padded images that hold image."""
    return np.array([geometry.resized for geometry in geometries], np.int32)
