"""The validations of a training: an evaluation of the parameters of the step, on the devices that train."""

import math
from collections.abc import Callable
from dataclasses import replace

import jax
from jax.sharding import Mesh

from oneformer_jax.app.actions.train.dry_run import FirstRecords
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.status import kpi
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.evaluation.evaluator import Scoring
from oneformer_jax.evaluation.report import headline, metrics_json
from oneformer_jax.models.oneformer import Params
from oneformer_jax.predict.jax_backend import JaxBackend
from oneformer_jax.training.distributed import gather
from oneformer_jax.training.run import TrainingRun
from oneformer_jax.training.sharding import local_mesh, whole_on_each_process


def validation(
    settings: TrainingRun, scoring: Scoring, dataset: Dataset, mesh: Mesh, run: Run
) -> Callable[[Params], dict[str, float]]:
    """A function of the parameters that scores them on `dataset`, a dry run on its first batch; each process does its
    share of the images. A score that is not defined (no such segment in the data) is left out of what it returns."""
    recipe, devices = settings.recipe, len(mesh.local_devices)
    backend = JaxBackend(recipe.model, {}, recipe.pixel_mean, recipe.pixel_std, local_mesh(mesh))
    scored = FirstRecords(dataset, scoring.batch_size * devices) if settings.dry_run else dataset
    evaluator = replace(
        scoring.evaluator(scored, devices), share=(jax.process_index(), jax.process_count()), gather=gather
    )

    def validate(params: Params) -> dict[str, float]:
        backend.params = whole_on_each_process(params, mesh)
        result = evaluator.run(backend)
        backend.params = {}  # a copy, where they are split
        metrics = {name: value for name, value in headline(result).items() if not math.isnan(value)}
        scores = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        run.console.print(f"validation  {scores}", highlight=False)
        run.status.write(
            "RUNNING", "Eval metrics generated.", kpi=kpi(metrics_json(result, per_class=scoring.per_class))
        )
        return metrics

    return validate
