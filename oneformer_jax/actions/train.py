"""The train action: spec in, checkpoints and curves out."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from oneformer_jax.actions import configure
from oneformer_jax.actions.starting_point import starting_point
from oneformer_jax.actions.status import StatusFile
from oneformer_jax.data.coco_panoptic import PanopticDataset
from oneformer_jax.data.pipeline import max_segments_of, steps_per_epoch, train_batches
from oneformer_jax.data.task_text import prompt_table, task_tokens
from oneformer_jax.errors import OneFormerError
from oneformer_jax.evaluation.report import headline
from oneformer_jax.inference.predictor import JaxBackend
from oneformer_jax.spec import Spec
from oneformer_jax.training import checkpoints as ckpt
from oneformer_jax.training.logbook import Logbook
from oneformer_jax.training.loop import LoopSettings, train_loop
from oneformer_jax.training.optimizer import make_optimizer
from oneformer_jax.training.sharding import make_mesh, put_replicated
from oneformer_jax.training.step import StepInputs, make_train_step


def train(spec: Spec, folder: Path, status: StatusFile, console: Console) -> None:
    """Trains what the spec describes in `folder`; resumes by itself if the folder holds checkpoints.

    Raises OneFormerError (spec, data, checkpoint) before any long work where the cause is known then.
    """
    dataset = configure.open_dataset(spec, "train")
    dataset.check_num_classes(spec.model.sem_seg_head.num_classes)
    validation = configure.open_dataset(spec, "val") if spec.dataset.val.annotations else None
    if validation is None:
        console.print("dataset.val is not set: no validation, and so no best checkpoint")
    elif validation.categories.names != dataset.categories.names:
        raise OneFormerError("dataset.train and dataset.val have different categories", where="dataset.val.annotations")

    mesh = make_mesh(spec.train.num_gpus)
    batch_size = spec.dataset.train.batch_size * mesh.size
    epoch_steps = spec.train.iters_per_epoch or steps_per_epoch(dataset, batch_size)
    settings = LoopSettings(
        total_steps=min(spec.train.num_epochs * epoch_steps, spec.train.optim.max_iter),
        steps_per_epoch=epoch_steps,
        validate_every=spec.train.validation_interval * epoch_steps,
        checkpoint_every=spec.train.checkpoint_interval
        * (1 if spec.train.checkpoint_interval_unit == "step" else epoch_steps),
        global_batch_size=batch_size,
    )
    schedule = configure.schedule(spec, settings.total_steps)
    optimizer = make_optimizer(configure.optimizer_config(spec), schedule)

    tasks = configure.tasks(spec)
    monitor = {"semantic": "mIoU", "instance": "AP", "panoptic": "PQ"}[tasks[0]]
    store = ckpt.Checkpoints(folder, keep=spec.train.keep_checkpoints, monitor=monitor)
    start = starting_point(spec, store.newest(), optimizer, console)
    config, start_step = start.config, start.step
    if start_step >= settings.total_steps:
        console.print(
            f"already complete: {folder} is at step {start_step} of {settings.total_steps}; "
            "raise train.num_epochs or use another results_dir to train on"
        )
        store.close()
        return
    state = put_replicated(start.state(), mesh)
    num_parameters = sum(np.prod(leaf.shape, dtype=int) for leaf in jax.tree.leaves(state.params))
    console.print(
        f"{len(dataset)} images, {len(dataset.categories)} classes, {num_parameters / 1e6:.1f} M parameters; "
        f"{settings.total_steps} steps of {batch_size} images on {mesh.size} {jax.default_backend()} device(s)",
        highlight=False,
    )

    mean, std = spec.dataset.pixel_mean, spec.dataset.pixel_std
    step_fn = make_train_step(
        config,
        configure.criterion_config(spec),
        optimizer,
        schedule,
        StepInputs(
            mean,
            std,
            task_tokens(config.task_pad_id, config.task_seq_len),
            prompt_table(dataset.categories.names),
        ),
        mesh=mesh,
        seed=spec.train.seed,
    )
    max_segments = max_segments_of(dataset, config.transformer.num_queries)
    batches = train_batches(dataset, configure.pipeline_settings(spec, batch_size, max_segments), start_step=start_step)
    description = ckpt.Description(config, dataset.categories, mean, std, spec.to_dict())
    logbook = Logbook(folder, total_steps=settings.total_steps, start_step=start_step, console=console)
    validate = None
    if validation is not None:
        validate = _validation(spec, validation, JaxBackend(config, state.params, mean, std), logbook, status)

    def on_epoch(epoch: int, values: dict[str, float]) -> None:
        status.write(
            "RUNNING",
            "Training loop in progress",
            epoch=epoch,
            max_epoch=spec.train.num_epochs,
            kpi={"train_loss": values["loss"]},
        )

    try:
        train_loop(
            state,
            step_fn,
            batches,
            settings,
            validate=validate,
            checkpoints=store,
            description=description,
            logbook=logbook,
            on_epoch=on_epoch,
        )
    finally:
        batches.close()
        logbook.close()
        store.close()
    if store.best_metric is not None:
        console.print(f"best {monitor}: {store.best_metric:.4f} at step {store.best_step}: {folder / 'best'}")
    console.print(f"checkpoints, curves and log: {folder}")


def _validation(
    spec: Spec, dataset: PanopticDataset, backend: JaxBackend, logbook: Logbook, status: StatusFile
) -> Callable[[Any], dict[str, float]]:
    evaluator = configure.evaluator(spec, dataset, spec.dataset.val.batch_size)

    def validate(params: Any) -> dict[str, float]:
        backend.params = params
        # A score that is not defined (no such segment in the data) is left out.
        metrics = {name: value for name, value in headline(evaluator.run(backend)).items() if not math.isnan(value)}
        logbook.message("validation  " + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
        status.write("RUNNING", "Eval metrics generated.", kpi=metrics)
        return metrics

    return validate
