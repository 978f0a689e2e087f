"""The evaluate action: a model and annotated images in, metrics.json, report.html and a table out. JAX only for a
checkpoint."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from rich.table import Table

from oneformer_jax.app.run.asked import asked_of_scores
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.opened import Skipped, agree, compiling, open_model, warn_of_notes
from oneformer_jax.app.run.status import kpi
from oneformer_jax.app.run.waiting import waiting
from oneformer_jax.checkpoints.agreement import Facts
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.files import open_dataset
from oneformer_jax.data.geometry import Letterbox
from oneformer_jax.evaluation.evaluator import Metrics
from oneformer_jax.evaluation.gallery import Gallery
from oneformer_jax.evaluation.metrics import GroundTruth
from oneformer_jax.evaluation.report import class_scores, mean_scores, metrics_json, percent
from oneformer_jax.predict.predictor import Predictor
from oneformer_jax.predict.report.layers import layers_of
from oneformer_jax.predict.report.page import Shown, report_page
from oneformer_jax.predict.runs import EvaluationRun
from oneformer_jax.writing import write_json, write_text

METRICS, REPORT = "metrics.json", "report.html"
WORST, BEST = 24, 8
"""Pictures of a report."""


def evaluate(settings: EvaluationRun, run: Run) -> Metrics:
    """Scores the model and writes metrics.json and report.html.

    The architecture comes from the checkpoint, the geometry of an exported model is the letterbox of its size. Raises
    OneFormerError (data, checkpoint, exported model) before long work; after it where images had to be left out.
    """
    if (path := run.folder / METRICS).exists():
        run.status.warning(f"the scores of an earlier evaluation will be replaced: {path}")
    skipped, gallery = Skipped(run.status), Gallery(WORST, BEST)
    metrics, model, dataset = _scored(settings, run, skipped, gallery)
    with waiting("drawing the report", run.console):
        facts = [f"{metrics.num_images} images, {metrics.geometry}. Scores are in percent."]
        facts += [f"{len(skipped.reasons)} images could not be used."] * bool(skipped.reasons)
        page = report_page(model.path, facts, metrics, _pictures(gallery, dataset, model))
        write_text(run.folder / REPORT, page)
    run.console.print(f"report: {run.folder / REPORT}")
    skipped.raise_any(f"the scores are those of the other {metrics.num_images}")
    return metrics


def score(settings: EvaluationRun, run: Run, skipped: Skipped) -> Metrics:
    """As `evaluate`, without a report, and leaving it to the caller what images that are left out mean."""
    return _scored(settings, run, skipped, None)[0]


def _scored(
    settings: EvaluationRun, run: Run, skipped: Skipped, gallery: Gallery | None
) -> tuple[Metrics, Predictor, Dataset]:
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
        metrics = evaluator.run(model.backend, lambda done, _: count(done), skipped, see=gallery)
    content = metrics_json(metrics, per_class=scoring.per_class)
    if skipped.reasons:
        content["skipped"] = list(skipped.reasons)
    path = run.folder / METRICS
    write_json(path, content)
    run.console.print(metrics_table(metrics, per_class=scoring.per_class))
    run.console.print(f"metrics: {path}")
    run.status.write("RUNNING", "Evaluation metrics generated.", kpi=kpi(content, prefix="test_"))
    return metrics, model, dataset


def _pictures(gallery: Gallery, dataset: Dataset, model: Predictor) -> Iterator[Shown]:
    """Those of a gallery, drawn."""
    categories, min_score = dataset.categories, model.thresholds.object_mask_threshold
    worst = gallery.worst
    for place, seen in enumerate([*worst, *gallery.best]):
        record = dataset.records[seen.number]
        image, planes = dataset.read(seen.number)
        truth = GroundTruth.from_segments(planes, record.segments)
        layers = layers_of(image, truth, seen.result, categories, model.is_thing, min_score)
        names = sorted({categories.name_of(segment.category) for segment in record.segments})
        yield Shown(record.image_path.name, seen.quality, place >= len(worst), names, layers)


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
