"""What a training is asked to do, before its data is opened, and the parts of it that the opened data completes."""

from collections.abc import Generator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Int

from oneformer_jax.checkpoints.description import Description, Training
from oneformer_jax.data.batch import Batch
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.files import DatasetFiles
from oneformer_jax.data.geometry import Policy
from oneformer_jax.data.pipeline import (
    PipelineSettings,
    image_names,
    max_prompts_of,
    steps_per_epoch,
    train_batches,
)
from oneformer_jax.data.task_text import prompt_table, task_tokens
from oneformer_jax.devices import DeviceChoice
from oneformer_jax.evaluation.evaluator import Scoring
from oneformer_jax.losses.criterion import OneFormerObjective
from oneformer_jax.losses.matching import CriterionConfig
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import TEMPERATURE
from oneformer_jax.postprocess.results import Thresholds
from oneformer_jax.training.loop import ImageNames, LoopSettings
from oneformer_jax.training.optimizer import OptimizerConfig, ScheduleConfig, make_optimizer
from oneformer_jax.training.step import StepInputs, StepSettings, TrainStep


@dataclass(frozen=True)
class Recipe:
    """What an update is made of, whatever the data.

    `temperature` is that of the contrastive loss at the start. Prompts have at most `prompt_length` tokens.
    """

    model: OneFormerConfig
    loss: CriterionConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    step: StepSettings
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    prompt_length: int = 77
    temperature: float = TEMPERATURE

    def learning_rate(self, loop: LoopSettings) -> optax.Schedule:
        """The learning rate of a training that is as long as `loop` says, at every step."""
        return self.schedule.build(loop.planned_steps, loop.steps_per_epoch, float(loop.shift))

    def make_optimizer(self, loop: LoopSettings) -> optax.GradientTransformation:
        """The optimizer of a training that is as long as `loop` says."""
        return make_optimizer(self.optimizer, self.learning_rate(loop), frozen=self.step.frozen)

    def make_step(
        self, loop: LoopSettings, prompts: Int[np.ndarray, "n l"], prompts_of_image: int, mesh: Mesh
    ) -> TrainStep:
        """The step for a table of `prompts`, of whose rows an image shows at most `prompts_of_image`."""
        tokens = task_tokens(self.model.task_pad_id, self.model.task_seq_len)
        inputs = StepInputs(self.pixel_mean, self.pixel_std, tokens, prompts, prompts_of_image)
        rate, optimizer = self.learning_rate(loop), self.make_optimizer(loop)
        model, objective = self.model.on(mesh), OneFormerObjective(self.loss.on(mesh))
        return TrainStep(model, objective, optimizer, rate, inputs, self.step, mesh)


@dataclass(frozen=True)
class Length:
    """How long to train and how often to stop for what; `in_steps` counts all of it in updates.

    An epoch has `steps_per_epoch` updates, None: as many as show every image once. A validation comes every
    `validation_epochs`, or, where it is below 1, after every `validation_share` of an epoch. An update takes
    `batches_per_step` batches; `profile_steps` of them are traced. After `patience` validations without a better score
    it ends, 0: never before its time.
    """

    epochs: int = 50
    max_steps: int = 368750
    steps_per_epoch: int | None = None
    validation_epochs: int = 1
    validation_share: float = 1.0
    checkpoint_interval: int = 1
    checkpoint_unit: Literal["epoch", "step"] = "epoch"
    batches_per_step: int = 1
    profile_steps: int = 0
    patience: int = 0

    def in_steps(self, dataset: Dataset, batch_size: int) -> LoopSettings:
        """The same for batches of `batch_size` images, over all devices, of `dataset`."""
        epoch = self.steps_per_epoch or steps_per_epoch(dataset, batch_size * self.batches_per_step)
        share = self.validation_share
        return LoopSettings(
            planned_steps=min(self.epochs * epoch, self.max_steps),
            steps_per_epoch=epoch,
            validate_every=max(1, round(share * epoch)) if share < 1 else self.validation_epochs * epoch,
            checkpoint_every=self.checkpoint_interval * (1 if self.checkpoint_unit == "step" else epoch),
            batch_size=batch_size,
            batches_per_step=self.batches_per_step,
            profile_steps=self.profile_steps,
            patience=self.patience,
        )


@dataclass(frozen=True)
class Start:
    """Locations of what a training starts with where its own folder holds no checkpoint: one to resume, else weights of
    a model and of a backbone. Where all are "" the parameters are random."""

    checkpoint: str = ""
    model: str = ""
    backbone: str = ""


@dataclass(frozen=True)
class Tracking:
    """A run of Weights & Biases."""

    project: str = ""
    entity: str = ""
    group: str = ""
    name: str = ""
    run_id: str = ""
    tags: tuple[str, ...] = ()
    reinit: bool = False
    sync_tensorboard: bool = False
    save_code: bool = False


@dataclass(frozen=True)
class TrainingRun:
    """A training in `folder`, where it resumes by itself.

    `pipeline.batch_size` counts the images of one device. `monitor` is the score that decides which checkpoint is the
    best ("": the first that is validated and that the data defines); that one and the newest `checkpoints_kept` stay
    (0: all). `policy` and `thresholds` are those that the trained model predicts with, where nothing else is said.
    `spec`: what describes all of this for a reader, as plain data; checkpoints keep it. `dry_run`: one step and one
    validation batch, and nothing is kept.
    """

    folder: Path
    recipe: Recipe
    data: DatasetFiles
    pipeline: PipelineSettings
    devices: DeviceChoice
    policy: Policy
    thresholds: Thresholds
    length: Length = Length()
    validation: Scoring | None = None
    start: Start = Start()
    checkpoints_kept: int = 3
    monitor: str = ""
    tracking: Tracking | None = None
    dry_run: bool = False
    verbose: bool = False
    spec: dict[str, Any] = field(default_factory=dict)


class Prepared(NamedTuple):
    """What the loop of a training runs: the step, its batches, and the files of their images."""

    step: TrainStep
    batches: Generator[Batch, None, None]
    image_names: ImageNames


def describe(settings: TrainingRun, loop: LoopSettings, dataset: Dataset) -> Description:
    """What the checkpoints of a training on the opened data say, before its first step."""
    recipe, schedule = settings.recipe, asdict(settings.recipe.schedule)
    training = Training(
        dataset_size=len(dataset),
        images_per_step=loop.images_per_step,
        monitor=settings.monitor,
        seed=recipe.step.seed,
        schedule={name: list(value) if isinstance(value, tuple) else value for name, value in schedule.items()}
        | {"epochs": settings.length.epochs},
    )
    return Description(
        recipe.model,
        dataset.categories,
        recipe.pixel_mean,
        recipe.pixel_std,
        settings.spec,
        policy=settings.policy,
        thresholds=settings.thresholds,
        training=training,
    )


def prepare(settings: TrainingRun, loop: LoopSettings, dataset: Dataset, mesh: Mesh, first_sample: int) -> Prepared:
    """The parts of a training on the opened data that have seen `first_sample` images."""
    recipe, pipeline = settings.recipe, replace(settings.pipeline, batch_size=loop.batch_size)
    prompts = prompt_table(dataset.categories.names, recipe.prompt_length)
    step = recipe.make_step(loop, prompts, max_prompts_of(dataset, pipeline), mesh)
    batches = train_batches(
        dataset,
        pipeline,
        first_sample=first_sample,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    return Prepared(step, batches, partial(image_names, dataset, pipeline))
