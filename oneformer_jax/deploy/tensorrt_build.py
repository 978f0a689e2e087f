"""An ONNX file to a TensorRT engine, on the GPU that will run it.

The same calls for TensorRT 10 and 11: networks are strongly typed, so number formats are those of the graph, and
8 bits are its `QuantizeLinear` and `DequantizeLinear` nodes. Version 11 knows nothing else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from oneformer_jax.data.datasets.images import read_image
from oneformer_jax.data.geometry import Letterbox, resize_and_pad
from oneformer_jax.errors import EngineError
from oneformer_jax.predict.exported import normalised
from oneformer_jax.predict.metadata import ANY_BATCH, INPUTS, Metadata
from oneformer_jax.predict.tensorrt_engine import reports
from oneformer_jax.tasks import TASKS
from oneformer_jax.writing import write_bytes

MIB = 2**20


BatchSizes = tuple[int, int, int]
"""Smallest, best and largest."""


@dataclass(frozen=True)
class BuildSettings:
    """`workspace` in MiB; `timing_cache` is read and written."""

    batch_sizes: BatchSizes = (1, 1, 1)
    workspace: int = 1024
    timing_cache: Path | None = None
    verbose: bool = False


@dataclass(frozen=True)
class Calibration:
    """What 8 bits are calibrated with: `images` (locations of folders) in `batches` of `batch_size`, 0: all of them.

    `cache` holds the ranges that were found: read where it exists, else written.
    """

    images: tuple[str, ...] = ()
    cache: Path | None = None
    batch_size: int = 1
    batches: int = 1


@dataclass(frozen=True)
class EngineRun:
    """An ONNX file to a TensorRT engine, on the GPU of index `device`.

    `path`: the file to write, None: the name of the ONNX file with .engine, in the folder of the run. `batch_sizes`,
    None: those of the file (1 where it takes any), come into `build` when the file is read. `layers` are number formats
    of single layers, as NAME:FORMAT. The engine is compared with ONNX Runtime on the first of `images` (locations by
    the key that names them) that is there; `verify_only`: the one that is there, and none is built. `triton`: a folder
    that gets a model repository of the engine, too.
    """

    onnx_file: Path
    path: Path | None = None
    device: int = 0
    data_type: str = "fp16"
    layers: tuple[str, ...] = ()
    batch_sizes: BatchSizes | None = None
    build: BuildSettings = field(default_factory=BuildSettings)
    calibration: Calibration = field(default_factory=Calibration)
    overwrite: bool = False
    images: tuple[tuple[str, str], ...] = ()
    verify_only: bool = False
    triton: Path | None = None


def build_engine(trt: Any, onnx_file: Path, inputs: Sequence[str], settings: BuildSettings) -> bytes:
    """The engine as TensorRT serializes it. `trt` is the module; the current CUDA device is the engine's.

    Raises EngineError: an operator that TensorRT does not know, a batch that the graph does not take, a timing cache of
    another version or GPU, too little memory.
    """
    logger = reports(trt, verbose=settings.verbose)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_file)):
        found = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise EngineError(f"TensorRT cannot read it: {'; '.join(found)[:500]}", where=str(onnx_file))
    _sample_bilinearly(trt, network)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace * MIB)
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default: float32 with a mantissa of 10 bits
    if settings.verbose:
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.add_optimization_profile(_profile(builder, network, inputs, settings.batch_sizes, str(onnx_file)))
    if settings.timing_cache is not None:
        _use_timing_cache(config, settings.timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"TensorRT could not build the engine: {'; '.join(logger.errors)[-500:]}",
            where=str(onnx_file),
            hint="with too little memory: raise gen_trt_engine.tensorrt.workspace_size or lower max_batch_size",
        )
    if settings.timing_cache is not None:
        write_bytes(settings.timing_cache, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _sample_bilinearly(trt: Any, network: Any) -> None:
    """Parsers of some versions read `linear`, as GridSample has it from opset 20 on, as nearest."""
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.GRID_SAMPLE:
            layer.__class__ = trt.IGridSampleLayer  # what is returned is a bare ILayer
            layer.interpolation_mode = trt.InterpolationMode.LINEAR


def _profile(builder: Any, network: Any, names: Sequence[str], batch_sizes: BatchSizes, where: str) -> Any:
    """The shapes that the inputs `names` may have: all but the batch are static."""
    inputs = {tensor.name: tensor for tensor in map(network.get_input, range(network.num_inputs))}
    if inputs.keys() != set(names):
        raise EngineError(f"its inputs are {[*inputs]}, not {[*names]}", where=where)
    profile = builder.create_optimization_profile()
    for tensor in inputs.values():
        batch, *rest = tensor.shape
        if -1 in rest:
            raise EngineError(f"input {tensor.name} has the shape {tuple(tensor.shape)}", where=where)
        if batch != -1 and set(batch_sizes) != {batch}:
            raise EngineError(
                f"it takes only batches of {batch}, not of {batch_sizes[0]} to {batch_sizes[2]}",
                where=where,
                hint="export with export.batch_size=-1, or set gen_trt_engine.batch_size to that of the file",
            )
        profile.set_shape(tensor.name, *((size, *rest) for size in batch_sizes))
    return profile


def _use_timing_cache(config: Any, path: Path) -> None:
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        hint = "remove the file and it will be written again"
        raise EngineError("the timing cache is damaged, or of another TensorRT or GPU", where=str(path), hint=hint)


def calibration_feeds(
    paths: Sequence[Path], metadata: Metadata, batch_size: int = 1
) -> Iterator[dict[str, np.ndarray]]:
    """Batches of normalised images with their task tokens, which take turns; all tasks occur, however few images. A
    graph with post-processing gets images of uint8.

    A graph of one batch size gets that, the last batch filled with its last image. Raises DataError: an unreadable
    image.
    """
    size = batch_size if metadata.batch_size == ANY_BATCH else metadata.batch_size
    batches = [paths[start : start + size] for start in range(0, len(paths), size)]
    has_task = metadata.postprocess == "none"
    turns = max(len(batches), len(TASKS) if has_task else 0) if batches else 0
    policy = Letterbox(metadata.image_size)
    for turn in range(turns):
        batch = batches[turn % len(batches)]
        images = [read_image(path) for path in (*batch, *[batch[-1]] * (size - len(batch)))]
        geometries = [policy(image.shape[:2]) for image in images]
        padded = np.stack([resize_and_pad(*pair) for pair in zip(images, geometries, strict=True)])
        if not has_task:
            yield {INPUTS[0]: padded}
            continue
        sizes = np.array([geometry.resized for geometry in geometries], np.int32)
        tokens = np.tile(metadata.tokens_of(TASKS[turn % len(TASKS)]), (len(images), 1))
        yield dict(zip(INPUTS, (normalised(padded, sizes, metadata), tokens), strict=True))
