"""How images are predicted and scored: tasks, thresholds, geometry, the evaluator. Free of JAX."""

from oneformer_jax.app.settings.data import num_workers
from oneformer_jax.app.spec import Spec
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.files import DatasetFiles, Split
from oneformer_jax.data.geometry import EvaluationPolicy, Geometry, Letterbox, Policy
from oneformer_jax.errors import SpecError
from oneformer_jax.evaluation.evaluator import Evaluator, Scoring
from oneformer_jax.evaluation.report import SCORES
from oneformer_jax.postprocess.thresholds import Thresholds
from oneformer_jax.tasks import TASKS, Task


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


def evaluation_policy(spec: Spec) -> Policy:
    """What the keys of `dataset` say: `test_geometry` decides whether and how `image_size` counts."""
    augmentation, size = spec.dataset.augmentation, spec.dataset.image_size
    chosen = augmentation.test_geometry
    squeezed = chosen == "square" or (chosen == "auto" and spec.is_changed("dataset.image_size"))
    width, height = (size, size) if isinstance(size, int) else size
    if chosen == "letterbox":
        return Letterbox((height, width))
    return EvaluationPolicy(
        augmentation.test_min_size, augmentation.test_max_size, (height, width) if squeezed else None
    )


def inference_geometry(spec: Spec, original: tuple[int, int]) -> Geometry:
    """That of an evaluation for an image of size `original` (height, width); where `inference.image_size` ([width,
    height]) is set, the image is fitted into that instead."""
    if spec.is_set("inference.image_size"):
        width, height = spec.inference.image_size
        return Letterbox((height, width))(original)
    return evaluation_policy(spec)(original)


def scoring(spec: Spec, data: DatasetFiles, scored: tuple[Task, ...]) -> Scoring:
    """How the data of a split is scored for the tasks `scored`."""
    workers = num_workers(spec, data.split)
    return Scoring(
        data,
        scored,
        evaluation_policy(spec),
        thresholds(spec),
        batch_size=spec.value(f"dataset.{data.split}.batch_size"),
        workers=Scoring.workers if workers is None else max(workers, 1),
        per_class=spec.evaluate.iou_per_class,
    )


def evaluator(
    spec: Spec, split: Split, dataset: Dataset, batch_size: int, scored: tuple[Task, ...], policy: Policy | None = None
) -> Evaluator:
    """The evaluator of the data of a split for the tasks `scored`, under the spec's thresholds and, where there is no
    other `policy`, its geometry."""
    workers = num_workers(spec, split)
    policy = policy or evaluation_policy(spec)
    return Evaluator(
        dataset,
        policy=policy,
        policy_name=policy.name,
        batch_size=batch_size,
        tasks=scored,
        thresholds=thresholds(spec),
        workers=Evaluator.workers if workers is None else max(workers, 1),
    )
