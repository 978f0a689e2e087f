"""A spec to the settings of a training: the one place that reads it for `train`, but for model, data and devices."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from oneformer_jax.app.settings.data import dataset_files, num_workers
from oneformer_jax.app.settings.evaluation import evaluation_policy, monitor, scoring, thresholds, validation_tasks
from oneformer_jax.app.settings.model import frozen_names, model_config
from oneformer_jax.app.settings.model_choice import device_choice
from oneformer_jax.app.spec import Spec
from oneformer_jax.app.spec.field import Section
from oneformer_jax.app.spec.model_keys import OneFormer
from oneformer_jax.app.spec.train_keys import Optim, Train
from oneformer_jax.data.augmentation import AugmentationSettings
from oneformer_jax.data.pipeline import PipelineSettings
from oneformer_jax.errors import SpecError
from oneformer_jax.losses.matching import CriterionConfig
from oneformer_jax.training.optimizer import OptimizerConfig, ScheduleConfig
from oneformer_jax.training.run import Length, Recipe, Start, Tracking, TrainingRun
from oneformer_jax.training.step import StepSettings


def training_run(spec: Spec, folder: Path) -> TrainingRun:
    """The training that a spec describes, with its results in `folder`.

    Raises SpecError where keys are unset, contradict each other or name nothing.
    """
    train = spec.train
    num_classes = spec.model.sem_seg_head.num_classes
    validation = dataset_files(spec, "val", num_classes=num_classes) if spec.dataset.val.has_data else None
    if train.early_stopping and validation is None:
        hint = "set dataset.val, or leave the key out"
        raise SpecError("no validation gives it a score", where="train.early_stopping", hint=hint)
    return TrainingRun(
        folder,
        training_recipe(spec),
        dataset_files(spec, "train", num_classes=num_classes),
        pipeline_settings(spec),
        device_choice(spec, "train"),
        evaluation_policy(spec),
        thresholds(spec),
        training_length(train),
        scoring(spec, validation, validation_tasks(spec)) if validation else None,
        Start(train.resume_training_checkpoint_path, train.pretrained_model, train.pretrained_backbone),
        checkpoints_kept=train.checkpoint_keep,
        monitor=monitor(spec),
        tracking=Tracking(**_same_names(spec.wandb, Tracking))
        if spec.wandb.enable and spec.is_set("wandb.enable")
        else None,
        dry_run=train.is_dry_run,
        verbose=train.verbose,
        spec=spec.to_dict(),
    )


def training_recipe(spec: Spec) -> Recipe:
    """What an update is made of. Raises SpecError for a frozen part that does not exist."""
    train = spec.train
    model = replace(model_config(spec), remat=train.remat)
    return Recipe(
        model,
        criterion_config(spec.model.one_former),
        optimizer_config(train),
        schedule_config(train.optim),
        StepSettings(
            train.seed, frozen_names(spec, model), train.precision, train.ema_decay, train.distributed_strategy
        ),
        spec.dataset.pixel_mean,
        spec.dataset.pixel_std,
        prompt_length=spec.dataset.max_seq_len,
        temperature=spec.model.one_former.contrastive_temperature,
    )


def pipeline_settings(spec: Spec) -> PipelineSettings:
    """What a training batch of one device looks like."""
    dataset, augmentation = spec.dataset, spec.dataset.augmentation
    by_short_edge = any(spec.is_changed(f"dataset.augmentation.train_{end}_size") for end in ("min", "max"))
    workers = num_workers(spec, "train")
    return PipelineSettings(
        batch_size=dataset.train.batch_size,
        num_workers=dataset.train.num_workers if workers is None else workers,
        seed=spec.train.seed,
        num_queries=spec.model.one_former.num_object_queries,
        n_ctx=spec.model.text_encoder.n_ctx,
        cutmix_prob=dataset.cutmix_prob,
        task_prob=dict(dataset.task_prob_train),
        augmentation=AugmentationSettings(
            **_same_names(augmentation, AugmentationSettings),
            crop=(augmentation.train_crop_size[0], augmentation.train_crop_size[1]),
            min_scale=dataset.min_scale,
            max_scale=dataset.max_scale,
            short_sizes=augmentation.train_min_size if by_short_edge else (),
            longest=augmentation.train_max_size,
        ),
    )


def criterion_config(former: OneFormer) -> CriterionConfig:
    """Loss weights and point counts."""
    return CriterionConfig(**_same_names(former, CriterionConfig), num_points=former.train_num_points)


def optimizer_config(train: Train) -> OptimizerConfig:
    """AdamW and its clipping.

    `clip_gradients` decides (norm 1.0 by default) unless `clip_grad_norm` differs from its default: then that one does,
    and 0 switches clipping off. Both changed is a contradiction which loading refuses.
    """
    clip = train.clip_gradients
    if train.is_changed("clip_grad_norm"):
        value, order, by_entry = train.clip_grad_norm, train.clip_grad_norm_type, False
    else:
        value, order, by_entry = clip.clip_value if clip.enabled else 0.0, clip.norm_type, clip.clip_type == "value"
    return OptimizerConfig(
        **_same_names(train.optim, OptimizerConfig),
        clip_type="value" if by_entry else "full_model",
        clip_value=value,
        clip_norm_type=order,
    )


def schedule_config(optim: Optim) -> ScheduleConfig:
    """The learning rate over the run; `milestones`, epochs, count where they are changed."""
    return ScheduleConfig(
        **_same_names(optim, ScheduleConfig),
        kind=optim.lr_scheduler,
        decay_steps=optim.steps,
        decay_epochs=optim.milestones if optim.is_changed("milestones") else None,
    )


def training_length(train: Train) -> Length:
    """How long to train and how often to stop for what."""
    return Length(
        epochs=train.num_epochs,
        max_steps=train.optim.max_iter,
        steps_per_epoch=train.iters_per_epoch,
        validation_epochs=train.validation_interval,
        validation_share=train.val_check_interval,
        checkpoint_interval=train.checkpoint_interval,
        checkpoint_unit=train.checkpoint_interval_unit,
        batches_per_step=train.accumulate_grad_batches,
        profile_steps=train.profile_steps,
        patience=train.early_stopping or 0,
    )


def _same_names(section: Section, settings: type) -> dict[str, Any]:
    """The keys of a section that fields of a dataclass are called after."""
    return section.model_dump(include={field.name for field in fields(settings)})
