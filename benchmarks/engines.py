"""Latency and accuracy of an exported model in ONNX Runtime and as TensorRT engines of every data type, side by side.

    python -m benchmarks.engines --spec spec.yaml --onnx model.onnx

For a machine with TensorRT and a GPU: builds an engine of each data type, scores it on the data of the spec as
`evaluate` does, and measures it. Prints the table of docs/export.md and writes it as JSON beside the engines.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from oneformer_jax.app.actions.evaluate import evaluate
from oneformer_jax.app.actions.model.gen_trt_engine import gen_trt_engine
from oneformer_jax.app.run.execute import running
from oneformer_jax.app.settings.deployment import engine_run
from oneformer_jax.app.settings.evaluation import evaluation_run
from oneformer_jax.evaluation.report import headline
from oneformer_jax.predict.metadata import read_sidecar
from oneformer_jax.predict.predictor import load_model, measure

DATA_TYPES = ("fp32", "fp16", "bf16", "int8", "fp8")
COLUMNS = ("model", "runs on", "MB", "float32 nodes", "mIoU", "PQ", "AP", "p50 ms", "images/s")
SCORES = ("mIoU", "PQ", "AP")

Row = dict[str, Any]


def compare(
    spec: Path,
    onnx: Path,
    folder: Path,
    console: Console,
    *,
    data_types: tuple[str, ...],
    overrides: list[str],
    runs: int,
) -> list[Row]:
    """A row for the ONNX file and for each engine, which are built into `folder`."""
    rows = [_row("onnx", onnx, spec, folder, overrides, console, runs)]
    for data_type in data_types:
        engine = folder / f"{data_type}.engine"
        keys = {"onnx_file": onnx, "trt_engine": engine, "tensorrt.data_type": data_type, "overwrite": "true"}
        building = [f"gen_trt_engine.{name}={value}" for name, value in keys.items()]
        with running("gen_trt_engine", spec, [*overrides, f"results_dir={folder}", *building], console) as (read, run):
            gen_trt_engine(engine_run(read), run)
        rows.append(_row(data_type, engine, spec, folder, overrides, console, runs))
    return rows


def _row(name: str, path: Path, spec: Path, folder: Path, overrides: list[str], console: Console, runs: int) -> Row:
    keys = [*overrides, f"evaluate.results_dir={folder / name}", f"evaluate.trt_engine={path}"]
    with running("evaluate", spec, keys, console) as (read, run):
        scores = headline(evaluate(evaluation_run(read), run))
    model = load_model(path)
    assert model.image_size is not None
    smallest = model.batch_sizes[0]
    (latency,) = measure(model.backend, model.image_size, [smallest], "semantic", warm_up=10, runs=runs)
    kept = {} if path.suffix == ".onnx" else read_sidecar(path)[1]["float32"]
    return {
        "model": name,
        "runs on": model.provider,
        "MB": round(path.stat().st_size / 1e6, 1),
        "float32 nodes": sum(map(len, kept.values())) if kept else "-",
        **{score: round(scores[score], 4) if score in scores else "-" for score in SCORES},
        "p50 ms": round(latency.percentile(50), 2),
        "images/s": round(latency.throughput, 1),
    }


def markdown(rows: list[Row]) -> str:
    """The rows as a table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- " * len(COLUMNS) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(str(row[column]) for column in COLUMNS) + " |" for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--spec", type=Path, required=True, help="with the data to score on; calibration keys for int8, fp8"
    )
    parser.add_argument("--onnx", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/engines"))
    parser.add_argument("--data-types", nargs="+", choices=DATA_TYPES, default=DATA_TYPES)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    rows = compare(
        given.spec, given.onnx, given.folder, Console(), data_types=tuple(given.data_types), overrides=given.overrides,
        runs=given.runs,
    )  # fmt: skip
    (given.folder / "engines.json").write_text(json.dumps(rows, indent=2) + "\n")
    print(markdown(rows))


if __name__ == "__main__":
    main()
