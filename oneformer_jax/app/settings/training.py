"""Spec keys to the settings of a training: the only place that knows both (the model's: `actions.architecture`).

Those of evaluation are in `actions.scoring`, the data sets in `actions.datasets`.
"""

from dataclasses import replace
from typing import Any

import optax

from oneformer_jax.app.settings.data import num_workers
from oneformer_jax.app.spec import Spec
from oneformer_jax.data.augmentation import AugmentationSettings
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.pipeline import PipelineSettings, max_segments_of, steps_per_epoch
from oneformer_jax.losses.config import CriterionConfig
from oneformer_jax.training.frozen import Names, frozen_parameters
from oneformer_jax.training.loop import LoopSettings
from oneformer_jax.training.optimizer import OptimizerConfig
from oneformer_jax.training.schedule import multi_step, warmup_poly


def criterion_config(spec: Spec) -> CriterionConfig:
    """Loss weights and point counts."""
    former = spec.model.one_former
    return CriterionConfig(
        class_weight=former.class_weight,
        mask_weight=former.mask_weight,
        dice_weight=former.dice_weight,
        contrastive_weight=former.contrastive_weight,
        no_object_weight=former.no_object_weight,
        num_points=former.train_num_points,
        oversample_ratio=former.oversample_ratio,
        importance_sample_ratio=former.importance_sample_ratio,
        deep_supervision=former.deep_supervision,
    )


def optimizer_config(spec: Spec) -> OptimizerConfig:
    """AdamW and its clipping."""
    optim, clip = spec.train.optim, spec.train.gradient_clip()
    groups = OptimizerConfig(
        weight_decay=optim.weight_decay,
        momentum=optim.momentum,
        backbone_multiplier=optim.backbone_multiplier,
        query_multiplier=optim.query_multiplier,
        clip_value=0.0,
    )
    if clip is None:
        return groups
    return replace(groups, clip_type=clip.clip_type, clip_value=clip.max_norm, clip_norm_type=clip.norm_type)


def loop_settings(spec: Spec, dataset: Dataset, num_devices: int) -> LoopSettings:
    """How long to train and how often to stop for what, all counted in updates."""
    train = spec.train
    batch_size, accumulated = spec.dataset.train.batch_size * num_devices, train.accumulate_grad_batches
    epoch = train.iters_per_epoch or steps_per_epoch(dataset, batch_size * accumulated)
    share = train.val_check_interval
    return LoopSettings(
        total_steps=min(train.num_epochs * epoch, train.optim.max_iter),
        steps_per_epoch=epoch,
        validate_every=max(1, round(share * epoch)) if share < 1 else train.validation_interval * epoch,
        checkpoint_every=train.checkpoint_interval * (1 if train.checkpoint_interval_unit == "step" else epoch),
        batch_size=batch_size,
        batches_per_step=accumulated,
        profile_steps=train.profile_steps,
    )


def schedule(spec: Spec, settings: LoopSettings) -> optax.Schedule:
    """The learning rate over the run."""
    optim = spec.train.optim
    warmup = optim.warmup_iters, optim.warmup_factor
    if optim.lr_scheduler == "MultiStep":
        return multi_step(optim.lr, optim.decay_steps(settings.steps_per_epoch), optim.gamma, *warmup)
    return warmup_poly(optim.lr, settings.total_steps, *warmup)


def frozen(spec: Spec, shapes: Any) -> Names:
    """The parameters that are not trained, of a model with parameters like `shapes`: those of `train.freeze` and
    `model.backbone.freeze_at`.

    Raises SpecError for a path that names nothing.
    """
    depth = spec.model.backbone.freeze_at
    stages = [name for i in range(depth - 1) for name in (f"layers.{i}", f"norm{i}")]
    first = ["patch_embed", "absolute_pos_embed"] if spec.model.backbone.swin.ape else ["patch_embed"]
    below = [f"backbone.{name}" for name in first + stages] if depth else []
    return frozen_parameters(shapes, [*spec.train.freeze, *below])


def pipeline_settings(spec: Spec, data: Dataset, batch_size: int) -> PipelineSettings:
    """What the training pipeline needs to make batches of `batch_size` images, over all devices, of `data`."""
    dataset, augmentation = spec.dataset, spec.dataset.augmentation
    num_queries = spec.model.one_former.num_object_queries
    by_short_edge = any(spec.is_changed(f"dataset.augmentation.train_{end}_size") for end in ("min", "max"))
    workers = num_workers(spec, "train")
    return PipelineSettings(
        batch_size=batch_size,
        num_workers=dataset.train.num_workers if workers is None else workers,
        seed=spec.train.seed,
        num_queries=num_queries,
        n_ctx=spec.model.text_encoder.n_ctx,
        max_segments=max_segments_of(data, num_queries, images=2 if dataset.cutmix_prob else 1),
        planes=data.planes,
        cutmix_prob=dataset.cutmix_prob,
        task_prob=dict(dataset.task_prob_train),
        augmentation=AugmentationSettings(
            crop=(augmentation.train_crop_size[0], augmentation.train_crop_size[1]),
            min_scale=dataset.min_scale,
            max_scale=dataset.max_scale,
            short_sizes=augmentation.train_min_size if by_short_edge else (),
            longest=augmentation.train_max_size,
            flip_prob=augmentation.flip_prob,
            color_prob=augmentation.color_prob,
            rotation_prob=augmentation.rotation_prob,
            blur_prob=augmentation.blur_prob,
            erasing_prob=augmentation.erasing_prob,
            crop_max_area=augmentation.crop_max_area,
        ),
    )
