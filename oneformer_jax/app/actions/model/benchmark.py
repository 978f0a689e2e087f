"""The benchmark command: how long a checkpoint, an ONNX file or an engine takes, over batch sizes."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.table import Table

from oneformer_jax.errors import EngineError
from oneformer_jax.predict.predictor import PERCENTILES, Latency, load_model, measure
from oneformer_jax.predict.runs import BenchmarkRun, ModelKind
from oneformer_jax.writing import write_json

OF_CHECKPOINTS = (640, 640)
"""Height and width of the images of a checkpoint, which takes any."""


def one_model(**paths: Path | None) -> tuple[ModelKind, Path]:
    """The one of `engine`, `onnx` and `checkpoint` that is given. Raises EngineError: none, or several."""
    given: list[tuple[ModelKind, Path]] = [(kind, path) for kind in get_args(ModelKind) if (path := paths[kind])]
    if len(given) != 1:
        raise EngineError("name one model", hint="give one of --engine, --onnx and --checkpoint")
    return given[0]


def benchmark(settings: BenchmarkRun, console: Console) -> list[Latency]:
    """Prints a table and, with an `output`, writes it as JSON.

    Raises OneFormerError: a model that cannot be opened or is of another kind, a batch that it does not take, a size
    where the model has one of its own.
    """
    path, kind, asked = settings.path, settings.kind, settings.image_size
    if (path.suffix == ".onnx") != (kind == "onnx"):
        raise EngineError("is not what the option says", where=str(path), hint=f"--{kind} takes another file")
    model = load_model(path, device_id=settings.device)
    own = model.image_size
    if own is not None and asked not in (None, own):
        raise EngineError(f"takes only images of {own}, not of {asked}", where=str(path), hint="leave --size out")
    size = own or asked or OF_CHECKPOINTS
    console.print(
        f"{path}: {model.provider}, {size[1]}x{size[0]}, {settings.warm_up} runs to warm up, {settings.runs} measured",
    )
    batches = {"warm_up": settings.warm_up, "runs": settings.runs}
    results = measure(model.backend, size, settings.batch_sizes, settings.task, **batches)
    console.print(_table(results))
    if settings.output is not None:
        content = {
            "model": str(path),
            "kind": kind,
            "runs_on": model.provider,
            "image_size": list(size),
            "task": settings.task,
            "warm_up": settings.warm_up,
            "results": [result.to_json() for result in results],
        }
        write_json(settings.output, content)
        console.print(f"results: {settings.output}")
    return results


def _table(results: Sequence[Latency]) -> Table:
    table = Table()
    for name in ("batch", *(f"p{percent} ms" for percent in PERCENTILES), "min ms", "images/s"):
        table.add_column(name, justify="right")
    for result in results:
        percentiles = (f"{result.percentile(percent):.2f}" for percent in PERCENTILES)
        fastest, rate = f"{min(result.milliseconds):.2f}", f"{result.throughput:.2f}"
        table.add_row(str(result.batch_size), *percentiles, fastest, rate)
    return table
