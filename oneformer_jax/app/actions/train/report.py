"""What a training says before its first step, and where it writes down what follows."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import jax
from rich.table import Table

from oneformer_jax.app.actions.train.progress import TrainingProgress, groups_table
from oneformer_jax.app.actions.train.wandb import wandb_writers
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.status import EpochLines
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.models import oneformer
from oneformer_jax.training.logbook import Logbook, SilentLogbook
from oneformer_jax.training.loop import LoopSettings
from oneformer_jax.training.optimizer import parameter_groups
from oneformer_jax.training.run import Recipe, TrainingRun


def early_endings(settings: TrainingRun, loop: LoopSettings) -> Iterator[str]:
    """What was asked for and ends early or never happens, a line for each."""
    length, schedule = settings.length, settings.recipe.schedule
    planned = length.epochs * loop.steps_per_epoch
    if loop.total_steps < planned:
        yield f"train.optim.max_iter ends the training after {loop.total_steps} of {planned} steps"
    steps = schedule.decays(loop.steps_per_epoch)
    if schedule.kind == "MultiStep" and not any(step < loop.total_steps for step in steps):
        yield f"MultiStep never decays: it would at {list(steps)}, and there are {loop.total_steps} steps"
    if settings.recipe.loss.contrastive_weight > 0:
        if loop.batch_size == 1:
            yield "the contrastive loss is 0: a batch of one image has no other to tell it from"
        elif loop.batches_per_step > 1:
            yield (
                f"the contrastive loss tells the {loop.batch_size} images of one batch apart, "
                f"not the {loop.images_per_step} of a step"
            )


def parameter_table(recipe: Recipe) -> Table:
    """Learning rate and weight decay of every part of the model."""
    groups = parameter_groups(oneformer.shapes(recipe.model), recipe.optimizer, recipe.step.frozen)
    return groups_table(groups, recipe.schedule.lr)


def what_is_trained(recipe: Recipe, dataset: Dataset, loop: LoopSettings, devices: int) -> str:
    """One line: data, model, and steps."""
    parameters = sum(leaf.size for leaf in jax.tree.leaves(oneformer.shapes(recipe.model)))
    frozen = recipe.step.frozen
    return (
        f"{len(dataset)} images, {len(dataset.categories)} classes, {parameters / 1e6:.1f} M parameters"
        f"{f' ({len(frozen)} arrays frozen)' if frozen else ''}; {loop.total_steps} steps of "
        f"{loop.images_per_step} images on {devices} {jax.default_backend()} device(s)"
    )


@contextmanager
def logbook_of(
    settings: TrainingRun, loop: LoopSettings, start_step: int, run: Run
) -> Iterator[tuple[Logbook, Callable[[int, float], None]]]:
    """The logbook of a training, and what writes the lines of an epoch to its status file.

    Of several processes the first one writes; the others have a logbook that does not.
    """
    on_epoch = EpochLines(
        run.status,
        epochs=settings.length.epochs,
        steps_per_epoch=loop.steps_per_epoch,
        total_steps=loop.total_steps,
        start=start_step,
    )
    if jax.process_index() != 0:
        yield SilentLogbook(), on_epoch
        return
    with wandb_writers(settings, run.status, run.console) as writers:
        progress = TrainingProgress(run.console, total_steps=loop.total_steps, start_step=start_step)
        logbook = Logbook(settings.folder, start_step=start_step, reporter=progress, writers=writers)
        with closing(logbook), progress:  # the bar ends before the curves are drawn
            yield logbook, on_epoch
