"""Exported models as backends of the evaluator: normalised images in, a batch that it takes, one run a task.

ONNX files run in ONNX Runtime, on the CPU or a CUDA device; engines see `tensorrt_engine`.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int, UInt8

from oneformer_jax.errors import EngineError, needs
from oneformer_jax.evaluation.backend import BatchLogits
from oneformer_jax.predict.foreign import foreign_metadata
from oneformer_jax.predict.metadata import ANY_BATCH, INPUTS, KEY, OUTPUTS, Metadata, metadata_of
from oneformer_jax.predict.runs import Stated
from oneformer_jax.tasks import Task

logger = logging.getLogger(__name__)
ENGINE_SUFFIXES = (".engine", ".plan")
EXPORTED_SUFFIXES = (".onnx", *ENGINE_SUFFIXES)
Device = Literal["auto", "cpu", "cuda"]
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
SAFE_RUNTIME = (1, 32)
"""The version of ONNX Runtime from which on external weights must lie in the folder of their file."""


def is_exported(path: Path | str) -> bool:
    """Whether a path is named like an exported model, an ONNX file or an engine."""
    return Path(path).suffix in EXPORTED_SUFFIXES


class ExportedBackend(ABC):
    """An exported model in memory; satisfies `evaluation.backend.Backend`.

    `where` is its file, for messages; `provider` says what computes, for people. `batch_sizes` are the smallest and the
    largest batch that it takes (None: any); a smaller one is filled with its last image.
    """

    where: str
    provider: str
    metadata: Metadata
    batch_sizes: tuple[int, int | None]

    @property
    def num_classes(self) -> int:
        """Of the logits, without "no object"."""
        return self.metadata.num_classes

    @abstractmethod
    def run(self, images: Float32[np.ndarray, "b 3 h w"], task_tokens: Float32[np.ndarray, "b n"]) -> BatchLogits:
        """Class logits (B, Q, K + 1) and mask logits (B, Q, h, w), float32, of normalised images."""

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


def check_shapes(metadata: Metadata, shapes: Mapping[str, Sequence[Any]], where: str) -> None:
    """Raises EngineError: logits have other `shapes`, by the names of outputs, than the metadata says."""
    height, width = metadata.image_size
    expected = {
        OUTPUTS[0]: [metadata.num_queries, metadata.num_classes + 1],
        OUTPUTS[1]: [metadata.num_queries, height // metadata.mask_stride, width // metadata.mask_stride],
    }
    for name, sizes in expected.items():
        found = list(shapes[name])[1:]
        if all(isinstance(size, int) for size in found) and found != sizes:
            raise EngineError(
                f"its metadata is of another graph: of an image, {name} has the shape {found}, not {sizes}",
                where=where,
                hint="export the checkpoint again",
            )


def refuse_results(metadata: Metadata, where: str) -> None:
    """Raises EngineError: a model that returns results, at its own size, where logits are needed."""
    if metadata.postprocess != "none":
        raise EngineError(
            f"it was exported with post-processing ({metadata.postprocess}): its results cannot be scored or "
            "drawn at the size of the original image",
            where=where,
            hint="export with export.include_postprocess=none for evaluate and inference",
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


class OnnxBackend(ExportedBackend):
    """An exported ONNX file.

    Runs on `device`; auto: CUDA where this ONNX Runtime has it. A file of TAO, which does not say what it is, runs with
    the classes of the label map that is `stated`. Raises EngineError: the file is missing, damaged, of another program,
    exported with post-processing, or CUDA is asked for and not there.
    """

    def __init__(
        self, path: Path | str, *, device: Device = "auto", device_id: int = 0, stated: Stated | None = None
    ) -> None:
        self.where = str(path)
        self.session = open_session(Path(path), device=device, device_id=device_id)
        self.provider = self.session.get_providers()[0]  # CPUExecutionProvider or CUDAExecutionProvider
        entries = self.session.get_modelmeta().custom_metadata_map
        if KEY in entries or stated is None or not stated.label_maps:
            self.metadata = metadata_of(entries, where=self.where)
        else:
            self.metadata = foreign_metadata(stated, self.session, self.where)
            logger.warning(
                "%s: not exported by this project: its classes are those of %s, and its task tokens padded as TAO's",
                self.where,
                stated.label_maps[0],
            )
        refuse_results(self.metadata, self.where)
        found = tuple(node.name for node in (*self.session.get_inputs(), *self.session.get_outputs()))
        if set(found) != {*INPUTS, *OUTPUTS}:
            raise EngineError(f"its inputs and outputs are {found}, not {INPUTS + OUTPUTS}", where=self.where)
        check_shapes(self.metadata, {node.name: node.shape for node in self.session.get_outputs()}, self.where)
        size = self.metadata.batch_size
        self.batch_sizes = (1, None) if size == ANY_BATCH else (size, size)

    def run(self, images: Float32[np.ndarray, "b 3 h w"], task_tokens: Float32[np.ndarray, "b n"]) -> BatchLogits:
        """Class logits (B, Q, K + 1) and mask logits (B, Q, h, w)."""
        feeds = dict(zip(INPUTS, (images, task_tokens), strict=True))
        class_logits, mask_logits = self.session.run(list(OUTPUTS), feeds)
        return class_logits, mask_logits


def open_session(path: Path, *, device: Device = "auto", device_id: int = 0) -> Any:
    """An `onnxruntime.InferenceSession`. Raises EngineError."""
    with needs("deploy", where=str(path)):
        import onnxruntime
    if not path.is_file():
        raise EngineError("no such file", where=str(path), hint="oneformer export writes one")
    if (version := tuple(map(int, onnxruntime.__version__.split(".")[:2]))) < SAFE_RUNTIME:
        found, least = (".".join(map(str, numbers)) for numbers in (version, SAFE_RUNTIME))
        raise EngineError(
            f"ONNX Runtime {found} reads any file of this machine that an ONNX file names as its weights",
            where=str(path),
            hint=f"install version {least} or a newer one",
        )
    has_cuda = CUDA in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise EngineError("this ONNX Runtime has no CUDA", where=str(path), hint=how_to_use_gpus())
    providers: list[Any] = [CPU]
    if has_cuda and device != "cpu":
        # Heuristic choice of convolutions: the exhaustive search takes minutes at every start.
        cuda = {"device_id": device_id, "cudnn_conv_algo_search": "HEURISTIC"}
        providers.insert(0, (CUDA, cuda))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # a class of its own for every kind of defect, none of which is public
        raise EngineError(
            f"ONNX Runtime cannot open it: {str(error).strip().splitlines()[0][:300]}",
            where=str(path),
            hint="the file is damaged, not an ONNX model, or made for a newer version",
        ) from error
    if device == "cuda" and session.get_providers()[0] != CUDA:
        raise EngineError("ONNX Runtime could not start CUDA", where=str(path), hint=how_to_use_gpus())
    return session


def how_to_use_gpus() -> str:
    """What to do where ONNX Runtime, which is installed, does not run on the GPU that there is."""
    import onnxruntime

    if CUDA in onnxruntime.get_available_providers():
        return "it printed above which library of CUDA or cuDNN is missing or of another version: install that"
    return "pip install onnxruntime-gpu in place of onnxruntime"
