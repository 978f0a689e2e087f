"""What a training validates: the parameters of a step, on the devices that train; or only that it would run."""

import math
import time
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from itertools import islice

import jax
from jax.sharding import Mesh

from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.status import kpi
from oneformer_jax.app.run.waiting import waiting
from oneformer_jax.data.batch import Batch
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.errors import OneFormerError
from oneformer_jax.evaluation.evaluator import Scoring, Stop
from oneformer_jax.evaluation.report import headline, metrics_json
from oneformer_jax.models.oneformer import Params
from oneformer_jax.predict.jax_backend import backend_on
from oneformer_jax.training.distributed import gather
from oneformer_jax.training.loop import LoopSettings, Validate
from oneformer_jax.training.run import TrainingRun
from oneformer_jax.training.sharding import local_mesh, whole_on_each_process
from oneformer_jax.training.step import TrainState, TrainStep


def validation(settings: TrainingRun, scoring: Scoring, dataset: Dataset, mesh: Mesh, run: Run) -> Validate:
    """A function of the parameters that scores them on `dataset`, a dry run on its first batch; each process does its
    share of the images. A score that is not defined (no such segment in the data) is left out of what it returns."""
    recipe, devices = settings.recipe, len(mesh.local_devices)
    backend = backend_on(local_mesh(mesh), recipe.model, {}, recipe.pixel_mean, recipe.pixel_std)
    scored = _first_records(dataset, scoring.batch_size * devices) if settings.dry_run else dataset
    evaluator = replace(
        scoring.evaluator(scored, devices), share=(jax.process_index(), jax.process_count()), gather=gather
    )

    own_images = len(range(jax.process_index(), len(scored), jax.process_count()))

    def validate(params: Params, stop: Stop = lambda: False) -> dict[str, float]:
        backend.params = whole_on_each_process(params, mesh)
        with waiting("validating", run.console, own_images) as count:
            try:
                result = evaluator.run(backend, lambda done, _: count(done), stop=stop)
            finally:
                backend.params = {}  # a copy, where they are split
        metrics = {name: value for name, value in headline(result).items() if not math.isnan(value)}
        scores = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        run.console.print(f"validation  {scores}")
        run.status.write(
            "RUNNING", "Eval metrics generated.", kpi=kpi(metrics_json(result, per_class=scoring.per_class))
        )
        return metrics

    return validate


def dry_run(
    state: TrainState,
    step_fn: TrainStep,
    batches: Iterator[Batch],
    loop: LoopSettings,
    validate: Validate | None,
    run: Run,
) -> None:
    """Shows that a training would run, by one step and one validation batch; nothing is kept.

    Raises OneFormerError when loss or gradient of the step are not finite.
    """
    start = time.monotonic()
    with waiting("compiling and running the first step", run.console):
        state, scalars = step_fn(state, *islice(batches, loop.batches_per_step))
        jax.block_until_ready(scalars)
    values = {name: float(value) for name, value in jax.device_get(scalars).items()}
    if values["not_finite"]:
        raise OneFormerError(f"the first step is not finite: {values}", hint="lower train.optim.lr or check the data")
    seconds = time.monotonic() - start
    run.console.print(f"one step, compilation included: loss {values['loss']:.3f}, {seconds:.0f} s")
    if validate is not None:
        validate(state.trained)
    done = "one step" if validate is None else "one step and one validation batch"
    run.status.end_with(f"Dry run finished successfully: {done}, no checkpoint was written.")
    run.console.print(f"dry run: {done}; no checkpoint was written")


def _first_records(dataset: Dataset, count: int) -> Dataset:
    """The first `count` records of a data set."""
    first = copy(dataset)
    first.records = dataset.records[:count]
    first.parts = {next(iter(dataset.parts)): range(len(first.records))}
    return first
