"""What a training says: before its first step, on the screen and in its files, and where memory runs out."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext

import jax
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from oneformer_jax.app.actions.train.wandb import wandb_writers
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.failures import explained, is_out_of_memory
from oneformer_jax.app.run.screen import words
from oneformer_jax.app.run.status import EpochLines
from oneformer_jax.app.run.waiting import Waiting
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.errors import OneFormerError
from oneformer_jax.models import oneformer
from oneformer_jax.training.logbook import Logbook, SilentLogbook
from oneformer_jax.training.loop import LoopSettings
from oneformer_jax.training.optimizer import parameter_groups
from oneformer_jax.training.run import Recipe, TrainingRun
from oneformer_jax.training.step_memory import StepMemory, least_memory, training_memory

FIRST_STEP = "compiling the first step"
FITS_A_BAR = 100
"""Columns of a terminal that has room for a bar beside the numbers of a step."""


def early_endings(settings: TrainingRun, loop: LoopSettings, images: int) -> Iterator[str]:
    """What was asked for and ends early or never happens with so many images, a line for each."""
    length, schedule = settings.length, settings.recipe.schedule
    planned = length.epochs * loop.steps_per_epoch
    if loop.total_steps < planned:
        yield f"train.optim.max_iter ends the training after {loop.total_steps} of {planned} steps"
    steps = schedule.decays(loop.steps_per_epoch)
    if schedule.kind == "MultiStep" and not any(step < loop.total_steps for step in steps):
        yield f"MultiStep never decays: it would at {list(steps)}, and there are {loop.total_steps} steps"
    if schedule.warmup_iters >= loop.total_steps:
        yield (
            f"the warm-up takes {schedule.warmup_iters} steps, and there are {loop.total_steps}: the learning rate "
            "never reaches train.optim.lr; lower train.optim.warmup_iters, or train longer"
        )
    if loop.images_per_step > images and not length.steps_per_epoch:
        yield (
            f"a step takes {loop.images_per_step} images, and there are {images}: an epoch is one step, and shows "
            "some of them several times"
        )
    if settings.recipe.loss.contrastive_weight > 0:
        if loop.batch_size == 1:
            yield "the contrastive loss is 0: it compares the images of a batch, which has only one"
        elif loop.batches_per_step > 1:
            yield (
                f"the contrastive loss compares the {loop.batch_size} images of one batch, "
                f"not the {loop.images_per_step} of a step"
            )


def parameter_table(recipe: Recipe) -> Table:
    """How the optimizer treats each part of the model, at its largest learning rate."""
    table = Table("part", "learning rate", "weight decay", "arrays", "parameters", title="optimizer")
    for group in parameter_groups(oneformer.shapes(recipe.model), recipe.optimizer, recipe.step.frozen):
        rate = f"{group.lr * recipe.schedule.lr:.3g}" if group.lr else "frozen"
        table.add_row(group.part, rate, f"{group.weight_decay:g}", str(group.arrays), f"{group.parameters:,}")
    return table


def what_is_trained(recipe: Recipe, dataset: Dataset, loop: LoopSettings, devices: int) -> str:
    """One line: data, model, and steps."""
    parameters = sum(leaf.size for leaf in jax.tree.leaves(oneformer.shapes(recipe.model)))
    frozen = recipe.step.frozen
    return (
        f"{len(dataset)} images, {len(dataset.categories)} classes, {parameters / 1e6:.1f} M parameters"
        f"{f' ({len(frozen)} arrays frozen)' if frozen else ''}; {loop.total_steps} steps of "
        f"{loop.images_per_step} images on {devices} {jax.default_backend()} device(s)"
    )


class TrainingProgress:
    """A bar with the numbers of the last step (a `training.logbook.Reporter`); a line each where there is no terminal.

    `bar`, as a context, is shown while it lasts; `first_step`, as another, says where there is no terminal why nothing
    is to be seen yet.
    """

    def __init__(self, console: Console, *, total_steps: int, start_step: int) -> None:
        self._console, self._total = console, total_steps
        self._first: tuple[int, float] | None = None  # step and time of the first report, which includes compilation
        self.bar = Progress(
            words("{task.description}"),
            *([BarColumn(bar_width=20)] if console.width >= FITS_A_BAR else []),
            MofNCompleteColumn(),
            words("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            console=console,
            refresh_per_second=2,
            disable=not console.is_terminal,
        )
        self._task = self.bar.add_task("train", total=total_steps, completed=start_step, numbers=FIRST_STEP)
        self.first_step = Waiting(FIRST_STEP, console)

    def step(self, step: int, scalars: Mapping[str, float], images_per_second: float) -> None:
        """`step` updates are done."""
        self.first_step.stop()
        numbers = f"loss {scalars['loss']:.3f}  lr {scalars['lr']:.2e}  {images_per_second:.1f} images/s"
        if self._first is None:
            self._first = (step, time.monotonic())
        elif step > self._first[0]:
            seconds_per_step = (time.monotonic() - self._first[1]) / (step - self._first[0])
            numbers += f"  ETA {_duration(seconds_per_step * (self._total - step))}"
        self.bar.update(self._task, completed=step, numbers=numbers)
        if not self._console.is_terminal:
            self._console.print(f"step {step}/{self._total}  {numbers}")

    def message(self, text: str) -> None:
        """One line above the bar."""
        self._console.print(text)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


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
        shift=loop.shift,
    )
    if jax.process_index() != 0:
        yield SilentLogbook(), on_epoch
        return
    with wandb_writers(settings, run.status, run.console) as writers:
        progress = TrainingProgress(run.console, total_steps=loop.total_steps, start_step=start_step)
        logbook = Logbook(settings.folder, start_step=start_step, reporter=progress, writers=writers)
        lines = nullcontext() if run.console.is_terminal else progress.first_step
        with closing(logbook), progress.bar, lines:  # the bar ends before the curves are drawn
            yield logbook, on_epoch


def what_to_change(settings: TrainingRun) -> str:
    """The keys that save memory and are not set to do so yet, those first that cost least."""
    recipe, batch_size = settings.recipe, settings.pipeline.batch_size
    changes = [
        "train.precision=bf16-mixed" if recipe.step.precision == "32" else "",
        "train.remat=blocks" if recipe.model.remat != "blocks" else "",
        f"dataset.train.batch_size={batch_size // 2} with "
        f"train.accumulate_grad_batches={2 * settings.length.batches_per_step} (the same step)"
        if batch_size > 1
        else "",
        "a smaller dataset.augmentation.train_crop_size",
    ]
    return f"set {', '.join(filter(None, changes))}"


@contextmanager
def explaining_out_of_memory(settings: TrainingRun) -> Iterator[None]:
    """Where memory runs out inside, raises OneFormerError: what a step needs of each device, with 16 segments in each
    image, and what to change."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        known = explained(error, "train")
        assert known is not None
        pipeline = settings.pipeline
        try:
            needed = _in_words(
                training_memory(
                    settings.recipe, pipeline.batch_size, pipeline.augmentation.crop, settings.length.batches_per_step
                )
            )
        except Exception as failed:  # memory may not even suffice for that: what ran out comes first
            needed = f"what a step needs could not be estimated ({str(failed).splitlines()[0][:100]})"
        raise OneFormerError(f"{known.what}; {needed}", hint=what_to_change(settings)) from error


def refuse_what_cannot_fit(settings: TrainingRun, mesh: Mesh) -> None:
    """Raises OneFormerError: a step needs more memory than a device, or this machine, has. Nothing is compiled."""
    pipeline, devices = settings.pipeline, mesh.local_devices
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    held = least_memory(settings.recipe, pipeline.batch_size, pipeline.augmentation.crop)
    statistics = devices[0].memory_stats() or {}
    there, needed = statistics.get("bytes_limit"), sum(held.values())
    if there is None:  # processors share the memory of the machine
        there, needed = machine, needed * len(devices)
    if needed > there:
        what = max(held, key=lambda name: held[name])
        raise OneFormerError(
            f"a step needs at least {needed / 2**30:,.1f} GiB, most of them for {what}; there are {there / 2**30:,.1f}",
            hint=what_to_change(settings),
        )
    height, width = pipeline.augmentation.crop
    taken = settings.length.batches_per_step * pipeline.batch_size * len(devices) * 3 * height * width
    if taken > machine:
        raise OneFormerError(
            f"the images of one step take {taken / 2**30:,.1f} GiB of this machine's {machine / 2**30:,.1f}",
            where="train.accumulate_grad_batches",
            hint="set it, dataset.train.batch_size or dataset.augmentation.train_crop_size to less",
        )


def _in_words(memory: StepMemory) -> str:
    listed = ", ".join(f"{name} {size / 2**20:,.0f}" for name, size in memory.parts.items() if name != "batch")
    return f"a step needs about {memory.total / 2**20:,.0f} MiB of each device, during {memory.moment} ({listed})"
