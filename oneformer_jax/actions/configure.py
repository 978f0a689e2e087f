"""Spec keys to the settings of each part: the only place that knows both (the model's: `actions.architecture`)."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import optax

from oneformer_jax.data.augmentation import AugmentationSettings
from oneformer_jax.data.dataset import Dataset
from oneformer_jax.data.geometry import Geometry, evaluation_policy, letterbox
from oneformer_jax.data.pipeline import PipelineSettings, max_segments_of, steps_per_epoch
from oneformer_jax.data.sources import Source, default_names, open_sources
from oneformer_jax.data.storage import local_file, local_folder
from oneformer_jax.data.tfds_dataset import SCHEME, open_prepared
from oneformer_jax.errors import SpecError
from oneformer_jax.evaluation.evaluator import Evaluator
from oneformer_jax.evaluation.report import SCORES
from oneformer_jax.losses.config import CriterionConfig
from oneformer_jax.postprocess.thresholds import Thresholds
from oneformer_jax.spec import Spec, require
from oneformer_jax.spec.field import Paths
from oneformer_jax.spec.tasks import TASKS, Task
from oneformer_jax.training.frozen import Names, frozen_parameters
from oneformer_jax.training.loop import LoopSettings
from oneformer_jax.training.optimizer import OptimizerConfig
from oneformer_jax.training.schedule import multi_step, warmup_poly

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


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


def num_workers(spec: Spec, split: Split) -> int | None:
    """What the spec says about the workers of a split, None where it leaves all at the defaults."""
    changed = [path for path in (f"dataset.{split}.num_workers", "dataset.workers") if spec.is_changed(path)]
    return int(spec.value(changed[0])) if changed else None


def tasks(spec: Spec) -> tuple[Task, ...]:
    """The tasks to evaluate: `evaluate.task` if set, else those that `model.test.*_on` switch on."""
    if spec.evaluate.task:
        return (spec.evaluate.task,)
    chosen = tuple(task for task in TASKS if getattr(spec.model.test, f"{task}_on"))
    if not chosen:
        raise SpecError("no task is switched on", where="model.test", hint="set model.test.semantic_on: true")
    return chosen


def validation_tasks(spec: Spec) -> tuple[Task, ...]:
    """The tasks that a training validates, each on its own: of `tasks` those with a chance in `task_prob_val`."""
    chances = spec.dataset.task_prob_val
    chosen = tuple(task for task in tasks(spec) if getattr(chances, task) > 0)
    if not chosen:
        where = "dataset.task_prob_val"
        raise SpecError("no task that is switched on has a chance", where=where, hint="see model.test.semantic_on")
    return chosen


def monitor(spec: Spec) -> str:
    """The score that decides which checkpoint is the best. Raises SpecError for one that no validation gives."""
    if spec.train.monitor:
        refuse_unknown_score(spec, spec.train.monitor, "train.monitor")
        return spec.train.monitor
    return SCORES[validation_tasks(spec)[0]][0]


def refuse_unknown_score(spec: Spec, name: str, key: str) -> None:
    """Raises SpecError where a training does not validate what gives the score; `mIoU/<name>` is of one data set."""
    known = [score for task in validation_tasks(spec) for score in SCORES[task]]
    if name.partition("/")[0] not in known:
        raise SpecError(
            f"no score of a validation is called {name}",
            where=key,
            hint=f"choose one of {', '.join(known)}, or switch on the task that has it in model.test",
        )


def thresholds(spec: Spec) -> Thresholds:
    """Post-processing thresholds."""
    test = spec.model.test
    return Thresholds(test.object_mask_threshold, test.overlap_threshold, test.test_topk_per_image)


def inference_geometry(spec: Spec, original: tuple[int, int]) -> Geometry:
    """That of an evaluation for an image of size `original` (height, width); where `inference.image_size` ([width,
    height]) is set, the image is fitted into that instead."""
    if spec.is_set("inference.image_size"):
        width, height = spec.inference.image_size
        fitted = letterbox(original, (height, width))
        return replace(fitted, padded=(-(-height // 32) * 32, -(-width // 32) * 32))  # the network's strides
    return evaluation_policy(spec)(original)


def evaluator(spec: Spec, split: Split, dataset: Dataset, batch_size: int, scored: tuple[Task, ...]) -> Evaluator:
    """The evaluator of the data of a split for the tasks `scored`, under the spec's geometry and thresholds."""
    workers = num_workers(spec, split)
    policy = evaluation_policy(spec)
    return Evaluator(
        dataset,
        policy=policy,
        policy_name=policy.name,
        batch_size=batch_size,
        tasks=scored,
        thresholds=thresholds(spec),
        workers=Evaluator.workers if workers is None else max(workers, 1),
    )


def open_dataset(spec: Spec, split: Split) -> Dataset:
    """The data set of a split, its files checked against each other and the label map.

    Raises SpecError if keys of the split are unset or contradict each other, DataError if its files cannot be used.
    """
    contiguous_id, maps = spec.dataset.contiguous_id, label_maps(spec)
    if folder := _prepared_folder(spec, split):
        return open_prepared(folder, split, contiguous_id=contiguous_id, label_maps=list(maps.values()))
    require(spec, f"dataset.{split}.annotations")
    return open_sources(sources(spec, split), contiguous_id=contiguous_id, label_maps=maps)


def has_data(spec: Spec, split: Split) -> bool:
    """Whether the spec says where the annotated images of a split are."""
    section = getattr(spec.dataset, split)
    return bool(section.annotations) or any(path.startswith(SCHEME) for path in path_list(section.images))


def _prepared_folder(spec: Spec, split: Split) -> Path | None:
    """The folder of prepared data that `images` names, which stands alone; None where it names none."""
    section = getattr(spec.dataset, split)
    key, images = f"dataset.{split}.images", path_list(section.images)
    if not any(path.startswith(SCHEME) for path in images):
        return None
    if len(images) > 1:
        raise SpecError("prepared data cannot stand in a list", where=key, hint="prepare all of it together")
    for name in ("annotations", "panoptic", "names"):
        if getattr(section, name):
            raise SpecError(
                f"a prepared data set ({images[0]}) holds its own annotations",
                where=f"dataset.{split}.{name}",
                hint=f"leave it empty, or set {key} to a folder of images",
            )
    return local_folder(images[0].removeprefix(SCHEME), what=key)


def label_maps(spec: Spec) -> dict[str, Path]:
    """The label map of each format of annotations; "*" is for those that have none of their own."""
    given = spec.dataset.label_map
    by_format = given.items() if isinstance(given, dict) else [("*", given)]
    return {name: local_file(path, what="dataset.label_map", suffix=".json") for name, path in by_format if path}


def sources(spec: Spec, split: Split) -> list[Source]:
    """The annotation files of a split with their folders: one folder is for all files, several are for one each.

    Archives are unpacked and addresses fetched. Raises DataError where that fails, SpecError: lists of different
    lengths, or a file or a name that stands twice.
    """
    section = getattr(spec.dataset, split)
    annotations = path_list(section.annotations)
    images, panoptic = (
        _one_each(getattr(section, name), len(annotations), f"dataset.{split}.{name}", f"dataset.{split}.annotations")
        for name in ("images", "panoptic")
    )
    names = list(section.names) or default_names(annotations)
    if len(names) != len(annotations):
        raise SpecError(
            f"{len(names)} names for {len(annotations)} annotation files",
            where=f"dataset.{split}.names",
            hint=f"one name for each file of dataset.{split}.annotations, or none",
        )
    for key, values in (("annotations", annotations), ("names", names)):
        if double := [value for value in values if values.count(value) > 1]:
            raise SpecError(f"'{double[0]}' stands there twice", where=f"dataset.{split}.{key}")
    return [
        Source(
            local_file(file, what=f"dataset.{split}.annotations", suffix=".json"),
            local_folder(folder, what=f"dataset.{split}.images") if folder else None,
            local_folder(pngs, what=f"dataset.{split}.panoptic") if pngs else None,
            name,
        )
        for file, folder, pngs, name in zip(annotations, images, panoptic, names, strict=True)
    ]


def path_list(paths: Paths) -> list[str]:
    """The paths of a key that holds one or several."""
    return [paths] if isinstance(paths, str) else list(paths)


def _one_each(paths: Paths, count: int, key: str, files_key: str) -> list[str]:
    """`paths` as a list of `count` entries; a single one is for all."""
    entries = path_list(paths)
    if len(entries) not in (1, count):
        raise SpecError(
            f"{len(entries)} folders for {count} annotation files",
            where=key,
            hint=f'one folder for each file of {files_key} ("" where there is none), or one for all',
        )
    return entries if len(entries) == count else entries * count
