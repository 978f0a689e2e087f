"""The train action: the settings of a training in, checkpoints and curves out."""

from contextlib import closing
from dataclasses import replace

import jax

from oneformer_jax.app.actions.train.report import (
    early_endings,
    explaining_out_of_memory,
    logbook_of,
    parameter_table,
    refuse_what_cannot_fit,
    what_is_trained,
)
from oneformer_jax.app.actions.train.start import newest_checkpoint, starting_point
from oneformer_jax.app.actions.train.validation import dry_run, validation
from oneformer_jax.app.run.asked import asked_of_training
from oneformer_jax.app.run.devices import mesh_of_training, refuse_different_specs, topology_table
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.opened import training_data
from oneformer_jax.checkpoints.store import Checkpoints
from oneformer_jax.models.compiled_programs import enable_compilation_cache
from oneformer_jax.training.loop import train_loop
from oneformer_jax.training.run import TrainingRun, describe, prepare


def train(settings: TrainingRun, run: Run) -> None:
    """Trains in the folder of `settings`; resumes by itself if that holds checkpoints.

    Raises OneFormerError (devices, data, checkpoint) before any long work where the cause is known then.
    """
    enable_compilation_cache()
    folder, console, status = settings.folder, run.console, run.status
    strategy = settings.recipe.step.strategy
    mesh = mesh_of_training(settings.devices, strategy, status)
    if mesh.size > 1:
        console.print(topology_table(mesh, strategy))
    refuse_different_specs(settings.spec)
    dataset, validated = training_data(settings.data, settings.validation, console, status.warning)
    tasks = settings.validation.tasks if settings.validation else ()
    monitor = asked_of_training(
        dataset, settings.pipeline.task_prob, validated, tasks, settings.monitor, status.warning
    )
    settings = replace(settings, monitor=monitor)
    loop = settings.length.in_steps(dataset, settings.pipeline.batch_size * mesh.size)
    # One context of JAX: a model that is traced in another one is traced again.
    with jax.default_device(mesh.local_devices[0]):
        refuse_what_cannot_fit(settings, mesh)
        for warning in early_endings(settings, loop, len(dataset)):
            status.warning(warning)
        if settings.verbose:
            console.print(parameter_table(settings.recipe))
        store = None
        if not settings.dry_run:
            store = Checkpoints(folder, keep=settings.checkpoints_kept, monitor=settings.monitor)
        newest = newest_checkpoint(folder, store)
        now = describe(settings, loop, dataset)
        start = starting_point(settings, loop, now, newest, mesh, run)
        loop = start.loop
        has_waited = loop.has_waited(start.step, store.best_step if store else None)
        state = start.state() if start.step < loop.total_steps and not has_waited else None
    if state is None:
        key = "train.early_stopping" if has_waited else "train.num_epochs"
        complete = (
            f"already complete: {folder} is at step {start.step} of {loop.total_steps} "
            f"({float(start.training.epochs):.4g} epochs); raise {key}, or use another results_dir, to train on"
        )
        console.print(complete)
        status.end_with(complete)
        if store:
            store.close()
        return
    console.print(what_is_trained(settings.recipe, dataset, loop, mesh.size))

    settings = replace(settings, recipe=replace(settings.recipe, model=start.model))
    step, batches, image_names = prepare(settings, loop, dataset, mesh, start.training.images)
    validate = None
    if settings.validation and validated:
        validate = validation(settings, settings.validation, validated, mesh, run)
    if store is None:
        with closing(batches):
            dry_run(state, step, batches, loop, validate, run)
        return

    with logbook_of(settings, loop, start.step, run) as (logbook, on_epoch):
        status.write("STARTED", "Starting Training Loop.")
        with store, closing(batches), explaining_out_of_memory(settings):
            train_loop(
                state,
                step,
                batches,
                loop,
                validate=validate,
                checkpoints=store,
                description=replace(now, model=start.model, training=start.training),
                logbook=logbook,
                on_epoch=on_epoch,
                image_names=image_names,
            )
    status.write("RUNNING", "Training loop complete.")
    if store.best_metric is not None:
        console.print(f"best {settings.monitor}: {store.best_metric:.4f} at step {store.best_step}: {folder / 'best'}")
    console.print(f"checkpoints, curves and log: {folder}")
