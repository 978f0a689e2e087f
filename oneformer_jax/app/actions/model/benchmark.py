"""The benchmark command: how long a checkpoint, an ONNX file or an engine takes, over batch sizes."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from oneformer_jax.data.geometry import Size
from oneformer_jax.errors import EngineError
from oneformer_jax.evaluation.evaluator import Backend
from oneformer_jax.predict.latency import PERCENTILES, Latency, measure
from oneformer_jax.predict.predictor import load_model
from oneformer_jax.tasks import Task


def benchmark(
    console: Console,
    *,
    engine: Path | None = None,
    onnx: Path | None = None,
    checkpoint: Path | None = None,
    batch_sizes: Sequence[int] = (1,),
    size: Size | None = None,
    task: Task = "semantic",
    warm_up: int = 3,
    runs: int = 20,
    device: int = 0,
    output: Path | None = None,
) -> list[Latency]:
    """Prints a table and, with `output`, writes it as JSON.

    Raises OneFormerError: not one model, one that cannot be opened, a batch that it does not take, a size where the
    model has one of its own.
    """
    given = [(name, path) for name, path in (("engine", engine), ("onnx", onnx), ("checkpoint", checkpoint)) if path]
    if len(given) != 1:
        raise EngineError("name one model", hint="give one of --engine, --onnx and --checkpoint")
    ((kind, path),) = given
    backend, size, runs_on = _backend(kind, path, size, device)
    console.print(
        f"{path}: {runs_on}, {size[1]}x{size[0]}, {warm_up} runs to warm up, {runs} measured", highlight=False
    )
    results = measure(backend, size, batch_sizes, task, warm_up=warm_up, runs=runs)
    console.print(_table(results))
    if output is not None:
        content = {
            "model": str(path),
            "kind": kind,
            "runs_on": runs_on,
            "image_size": list(size),
            "task": task,
            "warm_up": warm_up,
            "results": [result.to_json() for result in results],
        }
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(content, indent=2) + "\n")
        console.print(f"results: {output}", highlight=False)
    return results


def _backend(kind: str, path: Path, size: Size | None, device: int) -> tuple[Backend, Size, str]:
    """The backend, the size of its images and what it runs on."""
    if (path.suffix == ".onnx") != (kind == "onnx"):
        raise EngineError("is not what the option says", where=str(path), hint=f"--{kind} takes another file")
    model = load_model(path, device_id=device)
    own = model.image_size
    if own is not None and size not in (None, own):
        raise EngineError(f"takes images of {own} alone, not of {size}", where=str(path), hint="leave --size out")
    return model.backend, own or size or (640, 640), model.provider


def _table(results: Sequence[Latency]) -> Table:
    table = Table()
    for name in ("batch", *(f"p{percent} ms" for percent in PERCENTILES), "min ms", "images/s"):
        table.add_column(name, justify="right")
    for result in results:
        percentiles = (f"{result.percentile(percent):.2f}" for percent in PERCENTILES)
        fastest, rate = f"{min(result.milliseconds):.2f}", f"{result.throughput:.2f}"
        table.add_row(str(result.batch_size), *percentiles, fastest, rate)
    return table
