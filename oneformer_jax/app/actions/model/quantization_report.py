"""What quantization gained and cost: size, scores and latency of a model before and after."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from oneformer_jax.app.actions.evaluate import evaluate
from oneformer_jax.app.run.model import model_to_run
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.spec import Spec
from oneformer_jax.evaluation.report import headline
from oneformer_jax.predict.latency import measure

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


def report(
    spec: Spec, before: Subject, after: Subject, folder: Path, status: StatusFile, console: Console
) -> dict[str, dict[str, float | None]]:
    """Prints the table and writes `quantization.json`; without annotated data the scores are missing, and told so."""
    measured = {}
    for name, subject in (("before", before), ("after", after)):
        measured[name] = _measured(_pointed(spec, subject), subject, folder / name, status)
    if not _has_data(spec):
        status.warning("neither dataset.test nor dataset.val has annotations: what accuracy it costs is not measured")
    content = {
        "before": measured["before"] | {"path": str(before.path)},
        "after": measured["after"] | {"path": str(after.path)},
    }
    (folder / "quantization.json").write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    console.print(_table(measured))
    console.print(f"quantized: {after.path}", highlight=False)
    kpi = {f"{key}_{name}": value for name, facts in measured.items() for key, value in facts.items()}
    status.write("RUNNING", "Quantized model evaluated.", kpi=kpi)
    return measured


def _pointed(spec: Spec, subject: Subject) -> Spec:
    """The spec with its `evaluate` section at a model."""
    engine, checkpoint = ("", str(subject.path)) if subject.kind == "checkpoint" else (str(subject.path), "")
    section = spec.evaluate.model_copy(update={"trt_engine": engine, "checkpoint": checkpoint})
    return spec.model_copy(update={"evaluate": section})


def _has_data(spec: Spec) -> bool:
    return bool(spec.dataset.test.annotations or spec.dataset.val.annotations)


def _measured(spec: Spec, subject: Subject, folder: Path, status: StatusFile) -> dict[str, float | None]:
    facts: dict[str, float | None] = {"size_MB": round(subject.size / 1e6, 3)}
    if _has_data(spec):
        folder.mkdir(exist_ok=True)
        scores = headline(evaluate(spec, folder, status, Console(quiet=True)))
        facts |= {name: _defined(scores[name]) for name in SCORES if name in scores}
    chosen = model_to_run(spec, "evaluate", 1, status)
    size = chosen.policy.size if chosen.policy else (spec.export.input_height, spec.export.input_width)
    (latency,) = measure(chosen.model.backend, size, [chosen.batch_size], "semantic", warm_up=WARM_UP, runs=RUNS)
    facts["latency_ms"] = round(latency.percentile(50) / latency.batch_size, 3)
    return facts


def _defined(value: float) -> float | None:
    return None if value != value else round(value, 5)


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
