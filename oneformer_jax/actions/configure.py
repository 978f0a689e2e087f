"""Spec keys to the settings of each part: the only place that knows both (the model's: `actions.architecture`)."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import optax

from oneformer_jax.data.augmentation import AugmentationSettings
from oneformer_jax.data.categories import check_agreement, load_label_map
from oneformer_jax.data.coco_panoptic import PanopticDataset
from oneformer_jax.data.geometry import Geometry, letterbox, short_edge
from oneformer_jax.data.pipeline import PipelineSettings
from oneformer_jax.errors import SpecError
from oneformer_jax.evaluation.evaluator import Evaluator
from oneformer_jax.losses.config import CriterionConfig
from oneformer_jax.postprocess.thresholds import Thresholds
from oneformer_jax.spec import Spec, require
from oneformer_jax.spec.tasks import TASKS, Task
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
        clip_value=0.0,
    )
    if clip is None:
        return groups
    return replace(groups, clip_type=clip.clip_type, clip_value=clip.max_norm, clip_norm_type=clip.norm_type)


def schedule(spec: Spec, total_steps: int) -> optax.Schedule:
    """The learning rate over the run."""
    optim = spec.train.optim
    if optim.lr_scheduler.lower() == "multistep":
        return multi_step(optim.lr, optim.steps, optim.gamma, optim.warmup_iters, optim.warmup_factor)
    return warmup_poly(optim.lr, total_steps, optim.warmup_iters, optim.warmup_factor)


def pipeline_settings(spec: Spec, global_batch_size: int, max_segments: int) -> PipelineSettings:
    """What the training pipeline needs."""
    dataset, augmentation = spec.dataset, spec.dataset.augmentation
    return PipelineSettings(
        batch_size=global_batch_size,
        num_workers=dataset.train.num_workers,
        seed=spec.train.seed,
        num_queries=spec.model.one_former.num_object_queries,
        n_ctx=spec.model.text_encoder.n_ctx,
        max_segments=max_segments,
        task_prob=dict(dataset.task_prob_train),
        augmentation=AugmentationSettings(
            crop=(augmentation.train_crop_size[0], augmentation.train_crop_size[1]),
            min_scale=dataset.min_scale,
            max_scale=dataset.max_scale,
            flip_prob=augmentation.flip_prob,
            color_prob=augmentation.color_prob,
            rotation_prob=augmentation.rotation_prob,
            blur_prob=augmentation.blur_prob,
            erasing_prob=augmentation.erasing_prob,
            crop_max_area=augmentation.crop_max_area,
        ),
    )


def tasks(spec: Spec) -> tuple[Task, ...]:
    """The tasks to evaluate: `evaluate.task` if set, else those that `model.test.*_on` switch on."""
    if spec.evaluate.task:
        return (spec.evaluate.task,)
    chosen = tuple(task for task in TASKS if getattr(spec.model.test, f"{task}_on"))
    if not chosen:
        raise SpecError("no task is switched on", where="model.test", hint="set model.test.semantic_on: true")
    return chosen


def thresholds(spec: Spec) -> Thresholds:
    """Post-processing thresholds."""
    test = spec.model.test
    return Thresholds(test.object_mask_threshold, test.overlap_threshold, test.test_topk_per_image)


def geometry_policy(spec: Spec, original: tuple[int, int]) -> Geometry:
    """The test-time geometry of an image of size `original` (height, width)."""
    augmentation = spec.dataset.augmentation
    return short_edge(original, augmentation.test_min_size, augmentation.test_max_size)


def inference_geometry(spec: Spec, original: tuple[int, int]) -> Geometry:
    """Like `geometry_policy`, but fitted into `inference.image_size` ([width, height]) where that is set."""
    if spec.is_set("inference.image_size"):
        width, height = spec.inference.image_size
        fitted = letterbox(original, (height, width))
        return replace(fitted, padded=(-(-height // 32) * 32, -(-width // 32) * 32))  # the network's strides
    return geometry_policy(spec, original)


def evaluator(spec: Spec, dataset: PanopticDataset, batch_size: int) -> Evaluator:
    """The evaluator of a data set under the spec's tasks, geometry and thresholds."""
    augmentation = spec.dataset.augmentation
    return Evaluator(
        dataset,
        policy=lambda original: geometry_policy(spec, original),
        policy_name=f"short_edge {augmentation.test_min_size}, at most {augmentation.test_max_size}",
        batch_size=batch_size,
        tasks=tasks(spec),
        thresholds=thresholds(spec),
    )


def open_dataset(spec: Spec, split: Literal["train", "val", "test"]) -> PanopticDataset:
    """The data set of a split, its files checked against each other, the label map and `num_classes`.

    Raises SpecError if a key of the split is unset, DataError if its files cannot be used.
    """
    section = getattr(spec.dataset, split)
    require(spec, f"dataset.{split}.annotations", f"dataset.{split}.panoptic")
    dataset = PanopticDataset(
        Path(section.images) if section.images else None,
        Path(section.panoptic),
        Path(section.annotations),
        contiguous_id=spec.dataset.contiguous_id,
    )
    if spec.dataset.label_map:
        label_map = load_label_map(Path(spec.dataset.label_map), contiguous_id=spec.dataset.contiguous_id)
        check_agreement(dataset.categories, label_map, where=spec.dataset.label_map)
    return dataset
