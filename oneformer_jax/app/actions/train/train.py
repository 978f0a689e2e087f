"""The train action: spec in, checkpoints and curves out."""

import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from rich.console import Console

from oneformer_jax.app.actions.train.dry_run import FirstRecords, dry_run
from oneformer_jax.app.actions.train.memory import explaining_out_of_memory, training_memory
from oneformer_jax.app.actions.train.progress import TrainingProgress, groups_table
from oneformer_jax.app.actions.train.start import starting_point
from oneformer_jax.app.actions.train.wandb import wandb_writers
from oneformer_jax.app.run.checked_data import checked_datasets
from oneformer_jax.app.run.devices import mesh_of, refuse_different_specs, topology_table
from oneformer_jax.app.run.execute import enable_compilation_cache
from oneformer_jax.app.run.status import EpochLines, StatusFile, kpi
from oneformer_jax.app.settings import data as datasets
from oneformer_jax.app.settings import evaluation as scoring
from oneformer_jax.app.settings import training as configure
from oneformer_jax.app.settings.devices import device_choice
from oneformer_jax.app.settings.model import model_config
from oneformer_jax.app.spec import Spec
from oneformer_jax.checkpoints.description import Description
from oneformer_jax.checkpoints.read import latest
from oneformer_jax.checkpoints.store import Checkpoints
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.files import Split
from oneformer_jax.data.pipeline import PipelineSettings, image_names, max_prompts_of, train_batches
from oneformer_jax.data.task_text import prompt_table, task_tokens
from oneformer_jax.errors import OneFormerError
from oneformer_jax.evaluation.report import headline, metrics_json
from oneformer_jax.losses.objective import OneFormerObjective
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.predict.jax_backend import JaxBackend
from oneformer_jax.training.distributed import gather
from oneformer_jax.training.frozen import Names
from oneformer_jax.training.logbook import Logbook, SilentLogbook
from oneformer_jax.training.loop import LoopSettings, train_loop
from oneformer_jax.training.optimizer import make_optimizer, parameter_groups
from oneformer_jax.training.sharding import Mesh, local_mesh, whole_on_each_process
from oneformer_jax.training.step import StepInputs, StepSettings, TrainStep


def train(spec: Spec, folder: Path, status: StatusFile, console: Console) -> None:
    """Trains what the spec describes in `folder`; resumes by itself if the folder holds checkpoints.

    Raises OneFormerError (spec, data, checkpoint) before any long work where the cause is known then.
    """
    enable_compilation_cache()
    mesh = mesh_of(device_choice(spec, "train"), status)
    console.print(topology_table(mesh, spec.train.distributed_strategy))
    refuse_different_specs(spec.to_dict())
    dataset, validation = _datasets(spec, console)
    settings = configure.loop_settings(spec, dataset, mesh.size)
    _tell_what_ends_early_or_never_happens(spec, settings, status)
    learning = _learning(spec, settings, console)

    store = None
    if not spec.train.is_dry_run:
        store = Checkpoints(folder, keep=spec.train.checkpoint_keep, monitor=scoring.monitor(spec))
    # What the first process sees counts: file systems that several hosts share may show the others an older state.
    newest = gather(store.newest() if store else latest(folder))[0]
    with jax.default_device(mesh.local_devices[0]):
        start = starting_point(spec, newest, learning.optimizer, console, mesh)
        if start.step >= settings.total_steps:
            complete = (
                f"already complete: {folder} is at step {start.step} of {settings.total_steps}; "
                "raise train.num_epochs or use another results_dir to train on"
            )
            console.print(complete)
            status.end_with(complete)
            if store:
                store.close()
            return
        state = start.state()
    _tell_what_is_trained(dataset, learning, settings, mesh, console)

    pipeline = configure.pipeline_settings(spec, dataset, settings.batch_size)
    step_fn = _train_step(spec, start.config, dataset, pipeline, learning, mesh)
    batches = train_batches(
        dataset,
        pipeline,
        start_step=start.step * settings.batches_per_step,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    validate = None
    if validation is not None:
        validate = _validation(spec, start.config, validation, mesh, status, console)
    if store is None:
        with closing(batches):
            dry_run(state, step_fn, batches, settings, validate, status, console)
        return

    mean, std = spec.dataset.pixel_mean, spec.dataset.pixel_std
    crop, device_batch = spec.dataset.augmentation.train_crop_size, spec.dataset.train.batch_size
    estimate = partial(training_memory, spec, device_batch, (crop[0], crop[1]))
    with _logbook(spec, folder, settings, start.step, status, console) as logbook:
        status.write("STARTED", "Starting Training Loop.")
        with store, closing(batches), explaining_out_of_memory(spec, estimate):
            train_loop(
                state,
                step_fn,
                batches,
                settings,
                validate=validate,
                checkpoints=store,
                description=Description(
                    start.config,
                    dataset.categories,
                    mean,
                    std,
                    spec.to_dict(),
                    policy=scoring.evaluation_policy(spec),
                    thresholds=scoring.thresholds(spec),
                ),
                logbook=logbook,
                on_epoch=EpochLines(
                    status,
                    epochs=spec.train.num_epochs,
                    steps_per_epoch=settings.steps_per_epoch,
                    total_steps=settings.total_steps,
                    start=start.step,
                ),
                image_names=partial(image_names, dataset, pipeline),
            )
    status.write("RUNNING", "Training loop complete.")
    if store.best_metric is not None:
        best = f"best {scoring.monitor(spec)}: {store.best_metric:.4f} at step {store.best_step}: {folder / 'best'}"
        console.print(best)
    console.print(f"checkpoints, curves and log: {folder}")


class _Learning(NamedTuple):
    """What is learned and how: the shapes of the parameters, the names of the frozen ones."""

    shapes: Any
    frozen: Names
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation


def _learning(spec: Spec, settings: LoopSettings, console: Console) -> _Learning:
    shapes, config = oneformer.shapes(model_config(spec)), configure.optimizer_config(spec)
    schedule, frozen = configure.schedule(spec, settings), configure.frozen(spec, shapes)
    if spec.train.verbose:
        console.print(groups_table(parameter_groups(shapes, config, frozen), spec.train.optim.lr))
    return _Learning(shapes, frozen, schedule, make_optimizer(config, schedule, frozen=frozen))


def _tell_what_is_trained(
    dataset: Dataset, learning: _Learning, settings: LoopSettings, mesh: Mesh, console: Console
) -> None:
    num_parameters = sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(learning.shapes))
    console.print(
        f"{len(dataset)} images, {len(dataset.categories)} classes, {num_parameters / 1e6:.1f} M parameters"
        f"{f' ({len(learning.frozen)} arrays frozen)' if learning.frozen else ''}; {settings.total_steps} steps of "
        f"{settings.images_per_step} images on {mesh.size} {jax.default_backend()} device(s)",
        highlight=False,
    )


def _train_step(
    spec: Spec,
    config: OneFormerConfig,
    dataset: Dataset,
    pipeline: PipelineSettings,
    learning: _Learning,
    mesh: Mesh,
) -> TrainStep:
    train = spec.train
    return TrainStep(
        config,
        OneFormerObjective(configure.criterion_config(spec)),
        learning.optimizer,
        learning.schedule,
        StepInputs(
            spec.dataset.pixel_mean,
            spec.dataset.pixel_std,
            task_tokens(config.task_pad_id, config.task_seq_len),
            prompt_table(dataset.categories.names, spec.dataset.max_seq_len),
            max_prompts_of(dataset, pipeline),
        ),
        StepSettings(train.seed, learning.frozen, train.precision, train.ema_decay, train.distributed_strategy),
        mesh,
    )


@contextmanager
def _logbook(
    spec: Spec, folder: Path, settings: LoopSettings, start_step: int, status: StatusFile, console: Console
) -> Iterator[Logbook]:
    """That of the first process; the others write nothing."""
    if jax.process_index() != 0:
        yield SilentLogbook()
        return
    with wandb_writers(spec, folder, status, console) as writers:
        progress = TrainingProgress(console, total_steps=settings.total_steps, start_step=start_step)
        logbook = Logbook(folder, start_step=start_step, reporter=progress, writers=writers)
        with closing(logbook), progress:  # the bar ends before the curves are drawn
            yield logbook


def _datasets(spec: Spec, console: Console) -> tuple[Dataset, Dataset | None]:
    """Of training and validation."""
    splits: tuple[Split, ...] = ("train", "val") if datasets.has_data(spec, "val") else ("train",)
    num_classes = spec.model.sem_seg_head.num_classes
    files = [datasets.dataset_files(spec, split, num_classes=num_classes) for split in splits]
    found = checked_datasets(files, console)
    dataset, validation = found["train"], found.get("val")
    if validation is None:
        console.print("dataset.val is not set: no validation, and so no best checkpoint")
    elif validation.categories.names != dataset.categories.names:
        raise OneFormerError("dataset.train and dataset.val have different categories", where="dataset.val.annotations")
    return dataset, validation


def _tell_what_ends_early_or_never_happens(spec: Spec, settings: LoopSettings, status: StatusFile) -> None:
    train, optim = spec.train, spec.train.optim
    planned = train.num_epochs * settings.steps_per_epoch
    if settings.total_steps < planned:
        status.warning(f"train.optim.max_iter ends the training after {settings.total_steps} of {planned} steps")
    steps = optim.decay_steps(settings.steps_per_epoch)
    if optim.lr_scheduler == "MultiStep" and not any(step < settings.total_steps for step in steps):
        status.warning(f"MultiStep never decays: it would at {list(steps)}, and there are {settings.total_steps} steps")
    if spec.model.one_former.contrastive_weight > 0:
        if settings.batch_size == 1:
            status.warning("the contrastive loss is 0: a batch of one image has no other to tell it from")
        elif settings.batches_per_step > 1:
            status.warning(
                f"the contrastive loss tells the {settings.batch_size} images of one batch apart, "
                f"not the {settings.images_per_step} of a step"
            )


def _validation(
    spec: Spec, config: OneFormerConfig, dataset: Dataset, mesh: Mesh, status: StatusFile, console: Console
) -> Callable[[Any], dict[str, float]]:
    backend = JaxBackend(config, {}, spec.dataset.pixel_mean, spec.dataset.pixel_std, local_mesh(mesh))
    batch_size = spec.dataset.val.batch_size * len(mesh.local_devices)
    scored = FirstRecords(dataset, batch_size) if spec.train.is_dry_run else dataset
    of_split = scoring.scoring(spec, datasets.dataset_files(spec, "val"), scoring.validation_tasks(spec))
    evaluator = replace(
        replace(of_split, batch_size=batch_size).evaluator(scored),
        share=(jax.process_index(), jax.process_count()),
        gather=gather,
    )

    def validate(params: Any) -> dict[str, float]:
        backend.params = whole_on_each_process(params, mesh)
        result = evaluator.run(backend)
        backend.params = {}  # a copy, where they are split
        # A score that is not defined (no such segment in the data) is left out.
        metrics = {name: value for name, value in headline(result).items() if not math.isnan(value)}
        scores = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        console.print(f"validation  {scores}", highlight=False)
        content = metrics_json(result, per_class=spec.evaluate.iou_per_class)
        status.write("RUNNING", "Eval metrics generated.", kpi=kpi(content))
        return metrics

    return validate
