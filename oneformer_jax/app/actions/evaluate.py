"""The evaluate action: a model and annotated images in, metrics.json and a table out. JAX only for a checkpoint."""

import json
import math
from dataclasses import replace

from rich.table import Table

from oneformer_jax.app.run.asked import asked_of_scores
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.opened import agree, open_model, warn_of_notes
from oneformer_jax.app.run.screen import counting
from oneformer_jax.app.run.status import kpi
from oneformer_jax.checkpoints.agreement import Facts
from oneformer_jax.data.datasets.files import open_dataset
from oneformer_jax.data.geometry import Letterbox
from oneformer_jax.evaluation.evaluator import Metrics
from oneformer_jax.evaluation.report import class_scores, mean_scores, metrics_json, percent
from oneformer_jax.predict.runs import EvaluationRun


def evaluate(settings: EvaluationRun, run: Run) -> Metrics:
    """Scores the model and writes metrics.json.

    The architecture comes from the checkpoint, the geometry of an exported model is the letterbox of its size. Raises
    OneFormerError (data, checkpoint, exported model) before long work.
    """
    scoring = settings.scoring
    dataset = open_dataset(scoring.data)
    warn_of_notes(dataset, run.status.warning)
    asked_of_scores(dataset, scoring.tasks, run.status.warning)
    model, batch_size = open_model(settings.model, scoring.batch_size, run)
    dataset.check_num_classes(model.num_classes)
    agree("evaluate", Facts(model.categories), Facts(dataset.categories), model.path, run)
    policy = Letterbox(model.image_size) if model.image_size else scoring.policy
    evaluator = replace(scoring, policy=policy, batch_size=batch_size, thresholds=model.thresholds).evaluator(dataset)
    with counting(run.console) as bar:
        task = bar.add_task("evaluate", total=len(dataset))
        metrics = evaluator.run(model.backend, lambda done, _: bar.update(task, completed=done))
    content = metrics_json(metrics, per_class=scoring.per_class)
    path = run.folder / "metrics.json"
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")
    run.console.print(metrics_table(metrics, per_class=scoring.per_class))
    run.console.print(f"metrics: {path}")
    run.status.write("RUNNING", "Evaluation metrics generated.", kpi=kpi(content, prefix="test_"))
    return metrics


def metrics_table(metrics: Metrics, *, per_class: bool = True) -> Table:
    """Percent with one decimal; a dash where a value is not defined."""
    rows, means = class_scores(metrics), mean_scores(metrics)
    without_column = [key for key in ("pixel_accuracy", "AP50", "AP75") if key in means]
    table = Table(
        title=f"{metrics.num_images} images, {metrics.geometry}, %",
        caption="  ".join(f"{key} {percent(means[key])}" for key in without_column),
    )
    table.add_column("class")
    for key in rows:
        table.add_column(key, justify="right")
    if per_class:
        for index, name in enumerate(metrics.class_names):
            table.add_row(name, *(percent(float(values[index])) for values in rows.values()))
        table.add_section()
    table.add_row("all", *(percent(means["mIoU" if key == "IoU" else key]) for key in rows), style="bold")
    for group in ("things", "stuff") if "panoptic" in metrics.scores else ():
        table.add_row(group, *(percent(means.get(f"{key}_{group}", math.nan)) for key in rows), style="bold")
    for name, part in metrics.parts.items():
        scores = mean_scores(part)
        table.add_row(f"{name} ({part.num_images})", *(percent(scores["mIoU" if k == "IoU" else k]) for k in rows))
    return table
