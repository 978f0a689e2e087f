"""The gen_trt_engine action: an exported ONNX file in, a TensorRT engine with its metadata out. Free of JAX."""

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from rich.console import Console

from converters.graphs.activations import (
    cached_ranges,
    formats_of_activations,
    measured_ranges,
    quantizable_layers,
    with_8bit_activations,
)
from converters.graphs.graph import Graph, read_graph
from converters.graphs.layers import FP8, INT8
from converters.graphs.precision import with_precision
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.spec import Spec, require
from oneformer_jax.data.datasets.images import list_images
from oneformer_jax.data.storage.cache import local_folder
from oneformer_jax.deploy.calibration import calibration_feeds
from oneformer_jax.deploy.tensorrt_build import BuildSettings, build_engine, write_engine
from oneformer_jax.errors import EngineError, SpecError
from oneformer_jax.predict.cuda import CudaDevice
from oneformer_jax.predict.exported import ENGINE_SUFFIXES
from oneformer_jax.predict.metadata import ANY_BATCH, Metadata, metadata_of, sidecar, write_sidecar
from oneformer_jax.predict.tensorrt_engine import engine_facts
from oneformer_jax.predict.tensorrt_library import tensorrt

KEYS = "gen_trt_engine"
EIGHT_BITS = {"int8": INT8, "fp8": FP8}
Kept = dict[str, tuple[str, ...]]


def gen_trt_engine(spec: Spec, folder: Path, status: StatusFile, console: Console) -> None:
    """Builds `gen_trt_engine.trt_engine` from `gen_trt_engine.onnx_file` on the GPU `gen_trt_engine.gpu_id`.

    Raises OneFormerError: no or a foreign ONNX file, keys that it does not allow, no TensorRT or GPU, an engine that is
    there already, no calibration image, what TensorRT cannot build.
    """
    require(spec, f"{KEYS}.onnx_file")
    section = spec.gen_trt_engine
    source = Path(section.onnx_file)
    target = engine_path(spec, folder)
    model = read_graph(source)
    metadata = metadata_of({entry.key: entry.value for entry in model.metadata_props}, where=str(source))
    if metadata.postprocess != "none":
        what = (
            f"it was exported with post-processing ({metadata.postprocess}), which evaluate and inference do themselves"
        )
        raise EngineError(what, where=str(source), hint="export with export.include_postprocess=none")
    batch_sizes = batch_sizes_of(spec, metadata)
    trt = tensorrt()
    device = CudaDevice(section.gpu_id)
    prepared, kept = prepare(spec, model, metadata, console)
    for reason, names in kept.items():
        console.print(f"float32: {len(names)} nodes ({reason})", highlight=False)
    settings = BuildSettings(
        batch_sizes,
        section.tensorrt.workspace_size,
        Path(section.timing_cache) if section.timing_cache else None,
        section.verbose,
    )
    console.print(f"building with TensorRT {trt.__version__} on {device.name}: this takes minutes", highlight=False)
    with written(prepared) as file:
        plan = build_engine(trt, file, settings)
    write_engine(target, plan)
    write_sidecar(
        target,
        metadata,
        **engine_facts(trt.__version__, device),
        batch_sizes=list(batch_sizes),
        data_type=section.tensorrt.data_type,
        float32={reason: list(names) for reason, names in kept.items()},
        onnx_file=source.name,
    )
    console.print(f"engine: {target} ({len(plan) / 1e6:.1f} MB), {sidecar(target).name} beside it", highlight=False)
    status.write("RUNNING", "Engine generated.", kpi={"engine_MB": round(len(plan) / 1e6, 3)})


def engine_path(spec: Spec, folder: Path) -> Path:
    """The file to write. Raises SpecError: another suffix than engines have, or it exists and may not be replaced."""
    section = spec.gen_trt_engine
    path = Path(section.trt_engine) if section.trt_engine else folder / f"{Path(section.onnx_file).stem}.engine"
    if path.suffix not in ENGINE_SUFFIXES:
        hint = f"evaluate and inference know engines by {' or '.join(ENGINE_SUFFIXES)}"
        raise SpecError(f"'{path.name}' is not the name of an engine", where=f"{KEYS}.trt_engine", hint=hint)
    if path.exists() and not section.overwrite:
        raise EngineError("exists already", where=str(path), hint=f"set {KEYS}.overwrite=true to replace it")
    return path


def batch_sizes_of(spec: Spec, metadata: Metadata) -> tuple[int, int, int]:
    """Smallest, best and largest batch: `batch_size` alone, or the three keys of `tensorrt`.

    Raises SpecError: out of order, or not what a file of one batch size has.
    """
    section = spec.gen_trt_engine
    paths = [f"{KEYS}.tensorrt.{name}_batch_size" for name in ("min", "opt", "max")]
    smallest, best, largest = (int(spec.value(path)) for path in paths)
    changed = any(spec.is_changed(path) for path in paths)
    fixed = metadata.batch_size
    if not changed and section.batch_size > 0:
        smallest = best = largest = section.batch_size
    elif not changed and fixed != ANY_BATCH:
        smallest = best = largest = fixed
    if not spec.is_set(paths[1]):
        best = max(smallest, min(best, largest))
    if not smallest <= best <= largest:
        raise SpecError(f"{smallest}, {best} and {largest} are not in order", where=", ".join(paths))
    if section.batch_size > 0 and not smallest <= section.batch_size <= largest:
        what = f"{section.batch_size} does not lie between {smallest} and {largest}"
        raise SpecError(what, where=f"{KEYS}.batch_size", hint=f"leave it out, or change {paths[2]}")
    if fixed != ANY_BATCH and {smallest, best, largest} != {fixed}:
        what = f"{section.onnx_file} takes batches of {fixed} alone, not of {smallest} to {largest}"
        where = paths[2] if changed else f"{KEYS}.batch_size"
        raise SpecError(what, where=where, hint="export with export.batch_size=-1, or leave these keys out")
    return smallest, best, largest


def prepare(spec: Spec, model: onnx.ModelProto, metadata: Metadata, console: Console) -> tuple[onnx.ModelProto, Kept]:
    """The graph in the number formats of the engine, and by reason the nodes that stay float32.

    Raises SpecError, EngineError: a quantized file and another `data_type`; see `with_precision` and `calibrated`.
    """
    keys = spec.gen_trt_engine.tensorrt
    found = formats_of_activations(model)
    wanted = EIGHT_BITS.get(keys.data_type)
    if found and found != {wanted}:
        name = next((name for name, dtype in EIGHT_BITS.items() if dtype in found), "another format")
        what = f"is {keys.data_type}, but the activations of {spec.gen_trt_engine.onnx_file} are quantized to {name}"
        raise SpecError(what, where=f"{KEYS}.tensorrt.data_type", hint=f"set it to {name}")
    if wanted and not found:
        model = calibrated(spec, model, metadata, wanted, console)
    return with_precision(model, "fp32" if wanted else keys.data_type, keys.layers_precision)


def calibrated(spec: Spec, model: onnx.ModelProto, metadata: Metadata, dtype: str, console: Console) -> onnx.ModelProto:
    """The graph with its products in 8 bits, but for those that `layers_precision` names.

    Raises SpecError: neither images nor a cache of ranges; DataError: a folder without images.
    """
    keys = spec.gen_trt_engine.tensorrt
    cache = Path(keys.calibration.cal_cache_file) if keys.calibration.cal_cache_file else None
    named = [choice.rpartition(":")[0] for choice in keys.layers_precision]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = Graph(copy)
    operators = {node.name: node.op_type for node in graph.nodes}
    chosen = {
        layer.key: dtype
        for layer in quantizable_layers(graph)
        if not any(fnmatchcase(layer.key, name) or fnmatchcase(operators[layer.key], name) for name in named)
    }

    def measured() -> dict[str, float]:
        require(spec, f"{KEYS}.tensorrt.calibration.cal_image_dir")
        given = keys.calibration.cal_image_dir
        folders = [given] if isinstance(given, str) else given
        where = f"{KEYS}.tensorrt.calibration.cal_image_dir"
        paths = [path for folder in folders for path in list_images(local_folder(folder, what=where))]
        if keys.calibration.cal_batches:
            paths = paths[: keys.calibration.cal_batches * keys.calibration.cal_batch_size]
        console.print(f"calibrating with {len(paths)} images", highlight=False)
        return measured_ranges(copy, calibration_feeds(paths, metadata, keys.calibration.cal_batch_size))

    ranges = cached_ranges(cache, measured) if cache is not None else measured()
    return with_8bit_activations(copy, chosen, ranges)


@contextmanager
def written(model: onnx.ModelProto) -> Iterator[Path]:
    """The graph as a file, for as long as TensorRT reads it; weights lie beside it where protobuf cannot hold them."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path, save_as_external_data=model.ByteSize() >= 2**31 - 1)
        yield path
