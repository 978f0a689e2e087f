"""Any engine as a backend of the evaluator: normalised images in, a batch of the size it takes, one run a task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int, UInt8

from oneformer_jax.errors import EngineError
from oneformer_jax.evaluation.evaluator import BatchLogits
from oneformer_jax.predict.metadata import Metadata
from oneformer_jax.tasks import Task


@runtime_checkable
class Engine(Protocol):
    """An exported model in memory."""

    @property
    def where(self) -> str:
        """Its file, for messages."""

    @property
    def provider(self) -> str:
        """What computes, for people."""

    @property
    def metadata(self) -> Metadata: ...

    @property
    def batch_sizes(self) -> tuple[int, int | None]:
        """The smallest and the largest batch that it takes; None: any."""

    def run(self, images: Float32[np.ndarray, "b 3 h w"], task_tokens: Float32[np.ndarray, "b n"]) -> BatchLogits:
        """Class logits (B, Q, K + 1) and mask logits (B, Q, H/4, W/4), float32, of normalised images."""
        ...


@dataclass(frozen=True)
class EngineBackend:
    """Satisfies `evaluation.evaluator.Backend`. A batch below the engine's smallest is filled with its last image."""

    engine: Engine

    def predict(
        self, images: UInt8[np.ndarray, "b h w 3"], sizes: Int[np.ndarray, "b 2"], tasks: Sequence[Task]
    ) -> dict[Task, BatchLogits]:
        """Logits for each task; `sizes` are the (height, width) inside the padded images that hold image.

        Raises EngineError: images of another size, or more of them than the engine takes.
        """
        metadata, count = self.engine.metadata, len(images)
        self.check_batch_size(count)
        if images.shape[1:3] != metadata.image_size:
            raise EngineError(
                f"takes images of {metadata.image_size}, not {images.shape[1:3]}", where=self.engine.where
            )
        smallest = self.engine.batch_sizes[0]
        filled = np.minimum(np.arange(max(count, smallest)), count - 1)
        inputs = normalised(images, sizes, metadata)[filled]
        results = {}
        for task in tasks:
            tokens = np.tile(metadata.tokens_of(task), (len(inputs), 1))
            class_logits, mask_logits = self.engine.run(inputs, tokens)
            results[task] = class_logits[:count], mask_logits[:count]
        return results

    def check_batch_size(self, count: int) -> None:
        """Raises EngineError: more images at once than the engine takes."""
        largest = self.engine.batch_sizes[1]
        if largest is not None and count > largest:
            raise EngineError(
                f"takes at most {largest} images at once, not {count}",
                where=self.engine.where,
                hint="lower the batch size, or build it for a larger one",
            )


def normalised(
    images: UInt8[np.ndarray, "b h w 3"], sizes: Int[np.ndarray, "b 2"], metadata: Metadata
) -> Float32[np.ndarray, "b 3 h w"]:
    """(pixel - mean) / std per channel on the 0..255 scale, and 0 in the padding, as `models.normalise`."""
    scale = np.float32(1) / np.array(metadata.pixel_std, np.float32)
    values = (images.astype(np.float32) - np.array(metadata.pixel_mean, np.float32)) * scale
    for image, (height, width) in zip(values, sizes, strict=True):
        image[height:], image[:, width:] = 0, 0
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
