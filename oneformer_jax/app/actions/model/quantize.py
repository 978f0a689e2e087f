"""The quantize action: a checkpoint or an ONNX file in, the same in 8 bits out, and what it gains and costs."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from rich.console import Console
from rich.table import Table

from converters.graphs.activations import measured_ranges, quantizable_layers, with_8bit_activations
from converters.graphs.graph import Graph, read_graph
from converters.graphs.layers import CONVOLUTION, LINEAR, Layer, chosen_layers
from converters.graphs.weights import tables, weighted_layers, with_8bit_weights
from converters.onnx.settings import QuantizationRun
from oneformer_jax.app.actions.evaluate import score
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.opened import Skipped, open_model
from oneformer_jax.app.run.screen import nothing
from oneformer_jax.app.run.waiting import waiting
from oneformer_jax.data.datasets.images import list_images
from oneformer_jax.data.storage.cache import local_folder
from oneformer_jax.deploy.tensorrt_build import calibration_feeds
from oneformer_jax.errors import CheckpointError, EngineError
from oneformer_jax.evaluation.report import headline
from oneformer_jax.predict.metadata import metadata_of
from oneformer_jax.predict.predictor import measure
from oneformer_jax.predict.runs import ComparisonRun, EvaluationRun
from oneformer_jax.writing import appearing_in, write_json

IMAGES = "dataset.quant_calibration_dataset.images_dir"
SCORES = ("mIoU", "PQ", "AP")
WARM_UP, RUNS = 2, 10


class Subject(NamedTuple):
    """A model, and the bytes of its files; of a float32 checkpoint, whose files hold what only training needs besides,
    those of the arrays that inference reads."""

    path: Path
    size: int


def quantize(settings: QuantizationRun, run: Run) -> Path:
    """Writes the model in 8 bits, whose path is returned, and ends with a table: size, scores, latency.

    `weight_only_ptq` makes a checkpoint of a checkpoint and an ONNX file of an ONNX file, `static_ptq` an ONNX file of
    either. Raises OneFormerError: no such model, a result that is there already, layers that do not exist, no
    calibration images.
    """
    target = run.folder / settings.target
    if target.exists() and not settings.overwrite:
        raise EngineError("exists already", where=str(target), hint="set quantize.overwrite=true to replace it")
    run.console.print(
        f"{settings.backend} names a library of TAO's; {settings.mode} runs on this project's own backend"
    )
    of_checkpoint = not settings.is_graph and settings.mode == "weight_only_ptq"
    source = settings.model
    if not of_checkpoint and settings.export is not None:
        from oneformer_jax.app.actions.model.export import export  # imports JAX

        source = export(settings.export, run)
    skipped = Skipped(run.status)
    with appearing_in(run.folder, target.name) as fresh:  # once it has been scored
        make = _quantize_checkpoint if of_checkpoint else _quantize_graph
        before, after = make(settings, source, fresh / target.name, run.console)
        report(settings.comparison, before, after, run, skipped)
    run.console.print(f"quantized: {target}", highlight=False)
    skipped.raise_any("the model is there, and was scored on the others")
    return target


def _quantize_checkpoint(
    settings: QuantizationRun, source: Path, target: Path, console: Console
) -> tuple[Subject, Subject]:
    """Writes a checkpoint whose kernels are in 8 bits, without the parts that are for training alone."""
    from oneformer_jax.checkpoints import contents
    from oneformer_jax.checkpoints.read import find_checkpoint, load_description, load_params
    from oneformer_jax.checkpoints.store import Checkpoints
    from oneformer_jax.models.compiled_programs import enable_compilation_cache
    from oneformer_jax.models.oneformer import PARTS, TRAINING_ONLY

    enable_compilation_cache()
    step_dir = find_checkpoint(source)
    description = load_description(step_dir)
    if description.quantized:
        raise CheckpointError("is already quantized", where=str(step_dir), hint="give the one that was trained")
    held = load_params(step_dir, description.shapes(str(step_dir)))
    params = {part: tree for part, tree in held.items() if part not in TRAINING_ONLY}
    layers = [
        Layer(name, (name,), CONVOLUTION if len(kernel.shape) == 4 else LINEAR)
        for name, kernel in contents.kernels(params)
    ]
    chosen = _chosen(settings, layers, console)
    absent = tuple(part for part in PARTS if part not in params)
    store = Checkpoints(target, keep=0, monitor="mIoU")
    store.save(contents.quantized(params, chosen), None, replace(description, quantized=chosen, absent=absent))
    store.close()
    written = sum(file.stat().st_size for file in target.glob("checkpoints/*/params/**/*") if file.is_file())
    return Subject(step_dir, contents.bytes_of(params)), Subject(target, written)


def _quantize_graph(settings: QuantizationRun, source: Path, target: Path, console: Console) -> tuple[Subject, Subject]:
    """Writes an ONNX file with weights, or weights and activations, in 8 bits."""
    model = read_graph(source)
    metadata = metadata_of({entry.key: entry.value for entry in model.metadata_props}, where=str(source))
    graph = Graph(model)
    if settings.mode == "weight_only_ptq":
        result = with_8bit_weights(model, _chosen(settings, weighted_layers(graph) + tables(graph), console))
    else:
        chosen = _chosen(settings, quantizable_layers(graph), console)
        paths = list_images(local_folder(settings.images, what=IMAGES))
        console.print(f"calibrating with {len(paths)} images")
        feeds = calibration_feeds(paths, metadata, settings.batch_size)
        providers = _providers(settings.device, console)
        with waiting("calibrating", console):
            ranges = measured_ranges(model, feeds, algorithm=settings.algorithm, providers=providers)
        result = with_8bit_activations(model, chosen, ranges)
    onnx.save(result, target)
    beside = source.with_name(source.name + ".data")  # where a large graph has its weights
    size = source.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)
    return Subject(source, size), Subject(target, target.stat().st_size)


def _chosen(settings: QuantizationRun, layers: Sequence[Layer], console: Console) -> dict[str, str]:
    chosen = chosen_layers(layers, settings.rules, settings.skip_names, settings.mode)
    counts = {dtype: list(chosen.values()).count(dtype) for dtype in dict.fromkeys(chosen.values())}
    shares = ", ".join(f"{count} to {dtype}" for dtype, count in counts.items())
    console.print(f"quantizing {len(chosen)} of {len(layers)} layers: {shares}")
    return chosen


def _providers(device: str, console: Console) -> tuple[str, ...]:
    """What ONNX Runtime calibrates on: `quantize.device` where it is there, else the processor, which it says."""
    import onnxruntime

    wanted = {"cpu": "CPUExecutionProvider", "trt": "TensorrtExecutionProvider"}.get(device, "CUDAExecutionProvider")
    if wanted not in onnxruntime.get_available_providers():
        console.print(f"this ONNX Runtime has no {device}: calibrating on the CPU")
        return ("CPUExecutionProvider",)
    return (wanted,) if device == "cpu" else (wanted, "CPUExecutionProvider")


def report(settings: ComparisonRun, before: Subject, after: Subject, run: Run, skipped: Skipped) -> None:
    """Prints the table and writes `quantization.json` beside what is not yet in its place; without annotated data the
    scores are missing: a warning."""
    subjects = {"before": before, "after": after}
    measured = {}
    for name, subject in subjects.items():
        with waiting(f"measuring the model {name} quantization", run.console):
            quiet = replace(run, folder=run.folder / name, console=nothing())
            measured[name] = _measured(settings, subject, quiet, skipped)
    if settings.scoring is None:
        run.status.warning("neither dataset.test nor dataset.val has annotations: the loss of accuracy is not measured")
    paths = {"before": before.path, "after": run.folder / after.path.name}
    content = {name: facts | {"path": str(paths[name])} for name, facts in measured.items()}
    write_json(after.path.with_name("quantization.json"), content)
    run.console.print(_table(measured))
    kpi = {f"{key}_{name}": value for name, facts in measured.items() for key, value in facts.items()}
    run.status.write("RUNNING", "Quantized model evaluated.", kpi=kpi)


def _measured(settings: ComparisonRun, subject: Subject, run: Run, skipped: Skipped) -> dict[str, float | None]:
    facts: dict[str, float | None] = {"size_MB": round(subject.size / 1e6, 3)}
    choice = replace(settings.model, path=str(subject.path))
    if settings.scoring is not None:
        run.folder.mkdir(exist_ok=True)
        scores = headline(score(EvaluationRun(choice, settings.scoring), run, skipped))
        facts |= {
            name: None if math.isnan(scores[name]) else round(scores[name], 5) for name in SCORES if name in scores
        }
    model, batch_size = open_model(choice, 1, run)
    size = model.image_size or settings.image_size
    (latency,) = measure(model.backend, size, [batch_size], "semantic", warm_up=WARM_UP, runs=RUNS)
    facts["latency_ms"] = round(latency.percentile(50) / latency.batch_size, 3)
    return facts


def _table(measured: dict[str, dict[str, Any]]) -> Table:
    """Scores in percent; the last column is the share of the size and the difference of the others."""
    table = Table(title="quantization")
    for name in ("", "before", "after", "change"):
        table.add_column(name, justify="right" if name else "left")
    before, after = measured["before"], measured["after"]
    for key, value in before.items():
        first, second = value, after[key]
        if first is None or second is None:
            table.add_row(key, "-", "-", "-")
        elif key in SCORES:
            table.add_row(f"{key} %", f"{100 * first:.2f}", f"{100 * second:.2f}", f"{100 * (second - first):+.2f}")
        else:
            table.add_row(key.replace("_", " "), f"{first:.2f}", f"{second:.2f}", f"x {second / first:.3f}")
    return table
