"""The quantize action: a checkpoint or an ONNX file in, the same in 8 bits out, and what it gains and costs."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx
from rich.console import Console

from converters.graphs.activations import measured_ranges, quantizable_layers, with_8bit_activations
from converters.graphs.graph import Graph, read_graph
from converters.graphs.layers import CONVOLUTION, LINEAR, Layer, chosen_layers
from converters.graphs.weights import tables, weighted_layers, with_8bit_weights
from oneformer_jax.app.actions.model.quantization_report import Subject, report
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.settings.evaluation import comparison_run
from oneformer_jax.app.spec import Spec, require
from oneformer_jax.data.datasets.images import list_images
from oneformer_jax.data.storage.cache import local_folder
from oneformer_jax.deploy.calibration import calibration_feeds
from oneformer_jax.errors import CheckpointError, EngineError, SpecError
from oneformer_jax.predict.metadata import metadata_of

ONNX_BACKEND = "modelopt.onnx"
NAME = "quantized_model"
IMAGES = "dataset.quant_calibration_dataset.images_dir"


def quantize(spec: Spec, folder: Path, status: StatusFile, console: Console) -> None:
    """Quantizes `quantize.model_path` into the result folder and ends with a table: size, scores, latency.

    `weight_only_ptq` makes a checkpoint of a checkpoint and an ONNX file of an ONNX file, `static_ptq` an ONNX file of
    either; a checkpoint is exported first, as `export` says. Raises OneFormerError: no such model, a backend for the
    other kind of model, a result that is there already, layers that do not exist, no calibration images.
    """
    require(spec, "quantize.model_path")
    keys = spec.quantize
    is_graph = keys.model_path.endswith(".onnx")
    if is_graph != (keys.backend == ONNX_BACKEND):
        what = f"{keys.backend} quantizes {'checkpoints' if is_graph else 'ONNX files'}"
        hint = f"set it to {ONNX_BACKEND if is_graph else 'torchao'}"
        raise SpecError(f"{what}, {keys.model_path} is none", where="quantize.backend", hint=hint)
    is_static = keys.mode == "static_ptq"
    if is_static:
        require(spec, IMAGES)
    target = folder / (f"{NAME}.onnx" if is_graph or is_static else NAME)
    if target.exists() and not keys.overwrite:
        raise EngineError("exists already", where=str(target), hint="set quantize.overwrite=true to replace it")
    console.print(f"{keys.backend} names a library of TAO's; {keys.mode} runs on this project's own backend")
    if not is_graph and not is_static:
        before, after = _quantize_checkpoint(spec, target, console)
    else:
        source = Path(keys.model_path) if is_graph else _exported(spec, folder, status, console)
        before, after = _quantize_graph(spec, source, target, console)
    report(comparison_run(spec), before, after, Run(folder, status, console))


def _quantize_checkpoint(spec: Spec, target: Path, console: Console) -> tuple[Subject, Subject]:
    """Writes a checkpoint whose kernels are in 8 bits, without the parts that are for training alone."""
    from oneformer_jax.app.run.execute import enable_compilation_cache
    from oneformer_jax.checkpoints import quantized
    from oneformer_jax.checkpoints.read import find_checkpoint, load_description, load_params
    from oneformer_jax.checkpoints.store import Checkpoints
    from oneformer_jax.models.oneformer import PARTS, TRAINING_ONLY

    enable_compilation_cache()
    step_dir = find_checkpoint(Path(spec.quantize.model_path))
    description = load_description(step_dir)
    if description.quantized:
        raise CheckpointError("is quantized already", where=str(step_dir), hint="give the one that was trained")
    held = load_params(step_dir, description.shapes())
    params = {part: tree for part, tree in held.items() if part not in TRAINING_ONLY}
    layers = [
        Layer(name, (name,), CONVOLUTION if len(kernel.shape) == 4 else LINEAR)
        for name, kernel in quantized.kernels(params)
    ]
    chosen = _chosen(spec, layers, console)
    absent = tuple(part for part in PARTS if part not in params)
    fresh = target.with_name(f".{target.name}.part")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        store = Checkpoints(fresh, keep=0, monitor="mIoU")
        store.save(quantized.quantized(params, chosen), None, replace(description, quantized=chosen, absent=absent))
        store.close()
        shutil.rmtree(target, ignore_errors=True)
        fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    written = sum(file.stat().st_size for file in target.glob("checkpoints/*/params/**/*") if file.is_file())
    return Subject("checkpoint", step_dir, quantized.bytes_of(params)), Subject("checkpoint", target, written)


def _quantize_graph(spec: Spec, source: Path, target: Path, console: Console) -> tuple[Subject, Subject]:
    """Writes an ONNX file with weights, or weights and activations, in 8 bits."""
    keys = spec.quantize
    model = read_graph(source)
    metadata = metadata_of({entry.key: entry.value for entry in model.metadata_props}, where=str(source))
    graph = Graph(model)
    if keys.mode == "weight_only_ptq":
        result = with_8bit_weights(model, _chosen(spec, weighted_layers(graph) + tables(graph), console))
    else:
        chosen = _chosen(spec, quantizable_layers(graph), console)
        paths = list_images(local_folder(spec.dataset.quant_calibration_dataset.images_dir, what=IMAGES))
        console.print(f"calibrating with {len(paths)} images", highlight=False)
        feeds = calibration_feeds(paths, metadata, spec.dataset.val.batch_size)
        ranges = measured_ranges(model, feeds, algorithm=keys.algorithm, providers=_providers(keys.device, console))
        result = with_8bit_activations(model, chosen, ranges)
    fresh = target.with_name(f".{target.name}.part")
    try:
        onnx.save(result, fresh)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
    return Subject.file(source), Subject.file(target)


def _chosen(spec: Spec, layers: Sequence[Layer], console: Console) -> dict[str, str]:
    keys = spec.quantize
    chosen = chosen_layers(layers, keys.layers, keys.skip_names, keys.mode)
    counts = {dtype: list(chosen.values()).count(dtype) for dtype in dict.fromkeys(chosen.values())}
    told = ", ".join(f"{count} to {dtype}" for dtype, count in counts.items())
    console.print(f"quantizing {len(chosen)} of {len(layers)} layers: {told}", highlight=False)
    return chosen


def _providers(device: str, console: Console) -> tuple[str, ...]:
    """What ONNX Runtime calibrates on: `quantize.device` where it is there, else the processor, which is told."""
    import onnxruntime

    wanted = {"cpu": "CPUExecutionProvider", "trt": "TensorrtExecutionProvider"}.get(device, "CUDAExecutionProvider")
    if wanted not in onnxruntime.get_available_providers():
        console.print(f"this ONNX Runtime has no {device}: calibrating on the processor", highlight=False)
        return ("CPUExecutionProvider",)
    return (wanted,) if device == "cpu" else (wanted, "CPUExecutionProvider")


def _exported(spec: Spec, folder: Path, status: StatusFile, console: Console) -> Path:
    """The checkpoint as an ONNX file, `model.onnx` in the result folder."""
    from oneformer_jax.app.actions.model.export import export
    from oneformer_jax.app.settings.deployment import export_run

    settings = export_run(spec, spec.quantize.model_path)
    return export(replace(settings, path=None, overwrite=True, ending=None), Run(folder, status, console))
