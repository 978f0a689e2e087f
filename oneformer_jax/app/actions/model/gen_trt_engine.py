"""The gen_trt_engine action: an exported ONNX file in, a proved TensorRT engine with its metadata out. Free of JAX."""

from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

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
from oneformer_jax.app.actions.model.compared import parity_table, pictures_of
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.waiting import waiting
from oneformer_jax.data.datasets.images import list_images
from oneformer_jax.data.storage.cache import local_folder
from oneformer_jax.deploy.proof import BOUNDS, IN_FLOAT32, prove
from oneformer_jax.deploy.tensorrt_build import BatchSizes, EngineRun, build_engine, calibration_feeds
from oneformer_jax.deploy.triton import check_repository, write_repository
from oneformer_jax.errors import EngineError, SpecError
from oneformer_jax.predict.metadata import ANY_BATCH, Metadata, metadata_of, sidecar, write_sidecar
from oneformer_jax.predict.parity import Parity
from oneformer_jax.predict.tensorrt_engine import CudaDevice, TensorRTEngine, engine_facts, tensorrt
from oneformer_jax.writing import appearing_in, write_json

KEYS = "gen_trt_engine"
IMAGES = f"{KEYS}.tensorrt.calibration.cal_image_dir"
EIGHT_BITS = {"int8": INT8, "fp8": FP8}
Kept = dict[str, tuple[str, ...]]


def gen_trt_engine(settings: EngineRun, run: Run) -> Path:
    """Builds the engine, which is returned, on the GPU that will run it, and compares it with ONNX Runtime.

    Raises OneFormerError: no or a foreign ONNX file, settings that it does not allow, no TensorRT or GPU, an engine
    that is there already, no calibration image, what TensorRT cannot build, or an engine that does not compute what its
    graph says, which is kept as `<name>.failed.engine`.
    """
    source, console = settings.onnx_file, run.console
    target = settings.path or run.folder / f"{source.stem}.engine"
    if target.exists() and not settings.overwrite and not settings.verify_only:
        raise EngineError("exists already", where=str(target), hint=f"set {KEYS}.overwrite=true to replace it")
    model = read_graph(source)
    metadata = metadata_of({entry.key: entry.value for entry in model.metadata_props}, where=str(source))
    smallest, _, largest = batch_sizes = batch_sizes_of(settings, metadata)
    if settings.triton:
        check_repository(settings.triton, metadata, (smallest, largest), f"{KEYS}.triton_dir", settings.overwrite)
    if settings.verify_only and not target.is_file():
        raise EngineError("no such file", where=str(target), hint=f"leave {KEYS}.verify_only out to build it")
    trt = tensorrt()
    device = CudaDevice(settings.device)
    prepared, kept = prepare(settings, model, metadata, console)
    for reason, names in kept.items():
        console.print(f"float32: {len(names)} nodes ({reason})")
    with TemporaryDirectory() as folder:  # the graph as a file, and beside it weights that protobuf cannot hold
        file = Path(folder) / "model.onnx"
        onnx.save(prepared, file, save_as_external_data=prepared.ByteSize() >= 2**31 - 1)
        computed = source if settings.data_type in IN_FLOAT32 else file

        def proved(engine: Path) -> Parity:
            pictures = pictures_of(settings.images, metadata.image_size, run)
            with waiting("comparing with ONNX Runtime", console):
                opened = TensorRTEngine(engine, device_id=settings.device)
                return prove(opened, computed, pictures, BOUNDS[settings.data_type])

        if settings.verify_only:
            parity = proved(target)
            write_json(report_of(target), parity.to_json())
            name, size = target.name, target.stat().st_size
        else:
            console.print(f"building with TensorRT {trt.__version__} on {device.name}: this takes minutes")
            with waiting("building", console):
                plan = build_engine(trt, file, metadata.inputs, replace(settings.build, batch_sizes=batch_sizes))
            facts = engine_facts(trt.__version__, device) | {
                "batch_sizes": list(batch_sizes),
                "data_type": settings.data_type,
                "float32": {reason: list(names) for reason, names in kept.items()},
                "onnx_file": source.name,
            }
            name, parity = _in_place(target, plan, metadata, facts, proved)
            size = len(plan)
    console.print(parity_table(parity))
    if parity.failures:
        raise EngineError(
            f"the engine and ONNX Runtime disagree: {'; '.join(parity.failures)}",
            where=str(target.with_name(name)),
            hint="export again with export.deformable_attention=gather, or try another TensorRT or data_type",
        )
    console.print(
        f"engine: {target} ({size / 1e6:.1f} MB), {sidecar(target).name} and {report_of(target).name} beside it"
    )
    if settings.triton:
        needs = f"a release with TensorRT {trt.__version__}, and a {device.name}"
        served = write_repository(settings.triton, target, metadata, (smallest, largest), needs)
        console.print(f"for Triton: {served}")
    done = "compared with its graph" if settings.verify_only else "generated"
    run.status.write("RUNNING", f"Engine {done}.", kpi={"engine_MB": round(size / 1e6, 3)})
    return target


def _in_place(
    target: Path, plan: bytes, metadata: Metadata, facts: dict[str, Any], proved: Callable[[Path], Parity]
) -> tuple[str, Parity]:
    """Puts an engine, its metadata and the report beside each other, under its own name where it is right. Returns the
    name, and what was found."""
    failed = target.with_name(f"{target.stem}.failed{target.suffix}")
    with appearing_in(target.parent, target.name) as fresh:
        engine = fresh / target.name
        engine.write_bytes(plan)
        write_sidecar(engine, metadata, **facts)
        parity = proved(engine)
        write_json(report_of(engine), parity.to_json())
        if parity.failures:
            for of_engine in (sidecar, report_of, Path):
                of_engine(engine).rename(of_engine(fresh / failed.name))
    return (failed if parity.failures else target).name, parity


def report_of(engine: Path) -> Path:
    """Where the comparison stands: `model.engine.report.json` beside `model.engine`."""
    return engine.with_name(f"{engine.name}.report.json")


def batch_sizes_of(settings: EngineRun, metadata: Metadata) -> BatchSizes:
    """Those of the settings, else those of the file. Raises SpecError: not what a file of one batch size has."""
    fixed = metadata.batch_size
    of_file = (1, 1, 1) if fixed == ANY_BATCH else (fixed, fixed, fixed)
    smallest, best, largest = settings.batch_sizes or of_file
    if fixed != ANY_BATCH and {smallest, best, largest} != {fixed}:
        raise SpecError(
            f"{settings.onnx_file} takes only batches of {fixed}, not of {smallest} to {largest}",
            where=f"{KEYS}.batch_size" if smallest == largest else f"{KEYS}.tensorrt.max_batch_size",
            hint="export with export.batch_size=-1, or leave these keys out",
        )
    return smallest, best, largest


def prepare(
    settings: EngineRun, model: onnx.ModelProto, metadata: Metadata, console: Console
) -> tuple[onnx.ModelProto, Kept]:
    """The graph in the number formats of the engine, and by reason the nodes that stay float32.

    Raises SpecError, EngineError: a quantized file and another `data_type`; see `with_precision` and `calibrated`.
    """
    found = formats_of_activations(model)
    wanted = EIGHT_BITS.get(settings.data_type)
    if found and found != {wanted}:
        name = next((name for name, dtype in EIGHT_BITS.items() if dtype in found), "another format")
        what = f"is {settings.data_type}, but the activations of {settings.onnx_file} are quantized to {name}"
        raise SpecError(what, where=f"{KEYS}.tensorrt.data_type", hint=f"set it to {name}")
    if wanted and not found:
        model = calibrated(settings, model, metadata, wanted, console)
    return with_precision(model, "fp32" if wanted else settings.data_type, settings.layers)


def calibrated(
    settings: EngineRun, model: onnx.ModelProto, metadata: Metadata, dtype: str, console: Console
) -> onnx.ModelProto:
    """The graph with its products in 8 bits, but for those that `settings.layers` names.

    Raises SpecError: neither images nor a cache of ranges; DataError: a folder without images.
    """
    calibration = settings.calibration
    named = [choice.rpartition(":")[0] for choice in settings.layers]
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
        if not calibration.images:
            raise SpecError(f"no value for {IMAGES}", hint=f"set it in the spec or with {IMAGES}=...")
        paths = [path for folder in calibration.images for path in list_images(local_folder(folder, what=IMAGES))]
        if calibration.batches:
            paths = paths[: calibration.batches * calibration.batch_size]
        console.print(f"calibrating with {len(paths)} images")
        with waiting("calibrating", console):
            return measured_ranges(copy, calibration_feeds(paths, metadata, calibration.batch_size))

    ranges = cached_ranges(calibration.cache, measured) if calibration.cache else measured()
    return with_8bit_activations(copy, chosen, ranges)
