"""What quantization gained and cost: size, scores and latency of a model before and after."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from oneformer_jax.app.actions.evaluate import evaluate
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.model import open_model
from oneformer_jax.evaluation.report import headline
from oneformer_jax.predict.latency import measure
from oneformer_jax.predict.runs import ComparisonRun, EvaluationRun

SCORES = ("mIoU", "PQ", "AP")
WARM_UP, RUNS = 2, 10


@dataclass(frozen=True)
class Subject:
    """A model: an ONNX file, or a checkpoint. `size` is that of the files; of a float32 checkpoint, whose files hold
    what only training needs besides, that of the arrays that inference reads."""

    kind: Literal["checkpoint", "onnx"]
    path: Path
    size: int

    @classmethod
    def file(cls, path: Path) -> "Subject":
        """An ONNX file, with what it keeps outside of itself."""
        beside = path.with_name(path.name + ".data")
        return cls("onnx", path, path.stat().st_size + (beside.stat().st_size if beside.is_file() else 0))


def report(settings: ComparisonRun, before: Subject, after: Subject, run: Run) -> dict[str, dict[str, float | None]]:
    """Prints the table and writes `quantization.json`; without annotated data the scores are missing: a warning."""
    measured = {
        name: _measured(settings, subject, replace(run, folder=run.folder / name, console=Console(quiet=True)))
        for name, subject in (("before", before), ("after", after))
    }
    if settings.scoring is None:
        run.status.warning("neither dataset.test nor dataset.val has annotations: the loss of accuracy is not measured")
    content = {
        "before": measured["before"] | {"path": str(before.path)},
        "after": measured["after"] | {"path": str(after.path)},
    }
    (run.folder / "quantization.json").write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    run.console.print(_table(measured))
    run.console.print(f"quantized: {after.path}", highlight=False)
    kpi = {f"{key}_{name}": value for name, facts in measured.items() for key, value in facts.items()}
    run.status.write("RUNNING", "Quantized model evaluated.", kpi=kpi)
    return measured


def _measured(settings: ComparisonRun, subject: Subject, run: Run) -> dict[str, float | None]:
    facts: dict[str, float | None] = {"size_MB": round(subject.size / 1e6, 3)}
    choice = replace(settings.model, path=str(subject.path))
    if settings.scoring is not None:
        run.folder.mkdir(exist_ok=True)
        scores = headline(evaluate(EvaluationRun(choice, settings.scoring), run))
        facts |= {
            name: None if math.isnan(scores[name]) else round(scores[name], 5) for name in SCORES if name in scores
        }
    model, batch_size = open_model(choice, 1, run.status)
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
