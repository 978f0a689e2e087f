"""The evaluate action: a model and annotated images in, metrics.json and a table out. JAX only for a checkpoint."""

import json
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import Progress

from oneformer_jax.app.run.kpi import kpi
from oneformer_jax.app.run.model import model_to_run, require_model
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.settings import data as datasets
from oneformer_jax.app.settings import evaluation as scoring
from oneformer_jax.app.spec import Spec
from oneformer_jax.data.datasets.files import open_dataset
from oneformer_jax.errors import DataError
from oneformer_jax.evaluation.evaluator import Metrics
from oneformer_jax.evaluation.report import metrics_json, metrics_table


def evaluate(spec: Spec, folder: Path, status: StatusFile, console: Console) -> Metrics:
    """Scores `evaluate.trt_engine`, else `evaluate.checkpoint`, on `dataset.test` if it has annotations, else on
    `dataset.val`.

    The architecture comes from the checkpoint, the geometry of an engine is the letterbox of its size. Raises
    OneFormerError (spec, data, checkpoint, engine) before long work.
    """
    require_model(spec, "evaluate")
    split: Literal["test", "val"] = "test" if datasets.has_data(spec, "test") else "val"
    dataset = open_dataset(datasets.dataset_files(spec, split))
    chosen = model_to_run(spec, "evaluate", getattr(spec.dataset, split).batch_size, status)
    model = chosen.model
    dataset.check_num_classes(model.num_classes)
    if dataset.categories.names != model.categories.names:
        raise DataError(
            "the categories differ from those that the model was trained on: "
            + _first_difference(model.categories.names, dataset.categories.names),
            where=dataset.where,
            hint="weights that were converted without class names: convert them again with --label-map",
        )
    tasks = scoring.tasks(spec)
    evaluator = scoring.evaluator(spec, split, dataset, chosen.batch_size, tasks, chosen.policy)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("evaluate", total=len(dataset))
        metrics = evaluator.run(model.backend, lambda done, _: bar.update(task, completed=done))
    per_class = spec.evaluate.iou_per_class
    content = metrics_json(metrics, per_class=per_class)
    path = folder / "metrics.json"
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    console.print(metrics_table(metrics, per_class=per_class))
    console.print(f"metrics: {path}")
    status.write("RUNNING", "Evaluation metrics generated.", kpi=kpi(content, prefix="test_"))
    return metrics


def _first_difference(theirs: tuple[str, ...], ours: tuple[str, ...]) -> str:
    pairs = [(i, a, b) for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b]
    if pairs:
        index, expected, found = pairs[0]
        return f"class {index} is '{found}', expected '{expected}'"
    return f"{len(ours)} categories, expected {len(theirs)}"
