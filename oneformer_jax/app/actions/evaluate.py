"""The evaluate action: a model and annotated images in, metrics.json and a table out. JAX only for a checkpoint."""

import math
from dataclasses import replace
from functools import partial

from rich.table import Table

from oneformer_jax.app.run.asked import asked_of_scores
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.opened import Skipped, agree, compiling, open_model, warn_of_notes
from oneformer_jax.app.run.status import kpi
from oneformer_jax.app.run.waiting import waiting
from oneformer_jax.checkpoints.agreement import Facts
from oneformer_jax.data.datasets.files import open_dataset
from oneformer_jax.data.geometry import Letterbox
from oneformer_jax.evaluation.evaluator import Metrics
from oneformer_jax.evaluation.report import class_scores, mean_scores, metrics_json, percent
from oneformer_jax.predict.runs import EvaluationRun
from oneformer_jax.writing import write_json

METRICS = "metrics.json"


def evaluate(settings: EvaluationRun, run: Run) -> Metrics:
    """Scores the model and writes metrics.json.

    The architecture comes from the checkpoint, the geometry of an exported model is the letterbox of its size. Raises
    OneFormerError (data, checkpoint, exported model) before long work; after it where images had to be left out.
    """
    if (path := run.folder / METRICS).exists():
        run.status.warning(f"the scores of an earlier evaluation will be replaced: {path}")
    skipped = Skipped(run.status)
    metrics = score(settings, run, skipped)
    skipped.raise_any(f"the scores are those of the other {metrics.num_images}")
    return metrics


def score(settings: EvaluationRun, run: Run, skipped: Skipped) -> Metrics:
    """As `evaluate`, leaving it to the caller what images that are left out mean."""
    scoring = settings.scoring
    dataset = open_dataset(scoring.data)
    warn_of_notes(dataset, run.status.warning)
    asked_of_scores(dataset, scoring.tasks, run.status.warning)
    model, batch_size = open_model(settings.model, scoring.batch_size, run)
    dataset.check_num_classes(model.num_classes)
    agree("evaluate", Facts(model.categories), Facts(dataset.categories), model.path, run)
    policy = Letterbox(model.image_size) if model.image_size else scoring.policy
    evaluator = replace(scoring, policy=policy, batch_size=batch_size, thresholds=model.thresholds).evaluator(dataset)
    with waiting("evaluating", run.console, len(dataset), partial(compiling, model)) as count:
        metrics = evaluator.run(model.backend, lambda done, _: count(done), skipped)
    content = metrics_json(metrics, per_class=scoring.per_class)
    if skipped.reasons:
        content["skipped"] = list(skipped.reasons)
    path = run.folder / METRICS
    write_json(path, content)
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
