"""Any exported model as a backend of the evaluator: normalised images in, a batch that it takes, one run a task."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int, UInt8

from oneformer_jax.errors import EngineError
from oneformer_jax.evaluation.evaluator import BatchLogits
from oneformer_jax.predict.metadata import Metadata
from oneformer_jax.tasks import Task

ENGINE_SUFFIXES = (".engine", ".plan")
EXPORTED_SUFFIXES = (".onnx", *ENGINE_SUFFIXES)


def is_exported(path: Path | str) -> bool:
    """Whether a path is named like an exported model, an ONNX file or an engine."""
    return Path(path).suffix in EXPORTED_SUFFIXES


class ExportedBackend(ABC):
    """An exported model in memory; satisfies `evaluation.evaluator.Backend`.

    `where` is its file, for messages; `provider` says what computes, for people. `batch_sizes` are the smallest and the
    largest batch that it takes (None: any); a smaller one is filled with its last image.
    """

    where: str
    provider: str
    metadata: Metadata
    batch_sizes: tuple[int, int | None]

    @abstractmethod
    def run(self, images: Float32[np.ndarray, "b 3 h w"], task_tokens: Float32[np.ndarray, "b n"]) -> BatchLogits:
        """Class logits (B, Q, K + 1) and mask logits (B, Q, H/4, W/4), float32, of normalised images."""

    def predict(
        self, images: UInt8[np.ndarray, "b h w 3"], sizes: Int[np.ndarray, "b 2"], tasks: Sequence[Task]
    ) -> dict[Task, BatchLogits]:
        """Logits for each task; `sizes` are the (height, width) inside the padded images that hold image.

        Raises EngineError: images of another size, or more of them than the model takes.
        """
        metadata, count = self.metadata, len(images)
        smallest, largest = self.batch_sizes
        check_batch_size(count, largest, self.where)
        if images.shape[1:3] != metadata.image_size:
            raise EngineError(f"takes images of {metadata.image_size}, not {images.shape[1:3]}", where=self.where)
        filled = np.minimum(np.arange(max(count, smallest)), count - 1)
        inputs = normalised(images, sizes, metadata)[filled]
        results = {}
        for task in tasks:
            tokens = np.tile(metadata.tokens_of(task), (len(inputs), 1))
            class_logits, mask_logits = self.run(inputs, tokens)
            results[task] = class_logits[:count], mask_logits[:count]
        return results


def check_batch_size(count: int, largest: int | None, where: str) -> None:
    """Raises EngineError: more images at once than the model takes."""
    if largest is not None and count > largest:
        raise EngineError(
            f"takes at most {largest} images at once, not {count}",
            where=where,
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
