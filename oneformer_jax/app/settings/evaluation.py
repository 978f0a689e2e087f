"""How images are predicted and scored: model, tasks, thresholds, geometry. Free of JAX."""

from collections.abc import Sequence

from oneformer_jax.app.settings.data import dataset_files, num_workers
from oneformer_jax.app.settings.model_choice import chosen_model, model_choice
from oneformer_jax.app.spec import Spec, require
from oneformer_jax.app.spec.field import path_list
from oneformer_jax.data.datasets.files import DatasetFiles, Split
from oneformer_jax.data.geometry import EvaluationPolicy, Letterbox, Policy
from oneformer_jax.errors import SpecError
from oneformer_jax.evaluation.evaluator import Scoring
from oneformer_jax.evaluation.report import SCORES
from oneformer_jax.postprocess.results import Thresholds
from oneformer_jax.predict.runs import ComparisonRun, EvaluationRun, InferenceRun
from oneformer_jax.tasks import TASKS, Task


def tasks(spec: Spec) -> tuple[Task, ...]:
    """The tasks to evaluate: `evaluate.task` if set, else those that `model.test.*_on` switch on."""
    if spec.evaluate.task:
        return (spec.evaluate.task,)
    chosen = tuple(task for task in TASKS if getattr(spec.model.test, f"{task}_on"))
    if not chosen:
        raise SpecError("no task is enabled", where="model.test", hint="set model.test.semantic_on: true")
    return chosen


def validation_tasks(spec: Spec) -> tuple[Task, ...]:
    """The tasks that a training validates, each on its own: of `tasks` those with a chance in `task_prob_val`."""
    chances = spec.dataset.task_prob_val
    chosen = tuple(task for task in tasks(spec) if getattr(chances, task) > 0)
    if not chosen:
        where = "dataset.task_prob_val"
        raise SpecError(
            "every task that model.test enables has probability 0", where=where, hint="see model.test.semantic_on"
        )
    return chosen


def monitor(spec: Spec) -> str:
    """The score that decides which checkpoint is the best, "": the data decides. Raises SpecError for one that no
    validation gives."""
    if spec.train.monitor:
        refuse_unknown_score(validation_tasks(spec), spec.train.monitor, "train.monitor")
    return spec.train.monitor


def refuse_unknown_score(tasks: Sequence[Task], name: str, key: str) -> None:
    """Raises SpecError where a training does not validate what gives the score; `mIoU/<name>` is of one data set."""
    known = [score for task in tasks for score in SCORES[task]]
    if name.partition("/")[0] not in known:
        raise SpecError(
            f"there is no validation score called {name}",
            where=key,
            hint=f"choose one of {', '.join(known)}, or enable the task that has it in model.test",
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


def evaluation_run(spec: Spec) -> EvaluationRun:
    """`evaluate.trt_engine`, else `evaluate.checkpoint`, on `dataset.test` if that has annotations, else `dataset.val`.

    Raises SpecError: keys that are unset or contradict each other.
    """
    model = model_choice(spec, "evaluate")
    if not spec.dataset.test.has_data and not spec.dataset.val.has_data:
        raise SpecError(
            "neither dataset.test.annotations nor dataset.val.annotations has a value: there is nothing to score",
            where=spec.place("dataset"),
            hint="set one of them in the spec or on the command line; dataset.test comes first where both are set",
        )
    return EvaluationRun(model, scoring(spec, dataset_files(spec, _scored_split(spec)), tasks(spec)))


def inference_run(spec: Spec) -> InferenceRun:
    """`inference.trt_engine`, else `inference.checkpoint`, on `inference.images_dir`, else on `dataset.test.images`.

    Raises SpecError: keys that are unset or contradict each other.
    """
    model = model_choice(spec, "inference")
    is_own = spec.inference.images_dir or not spec.dataset.test.images
    key = "inference.images_dir" if is_own else "dataset.test.images"
    require(spec, key)
    width, height = spec.inference.image_size
    return InferenceRun(
        model,
        images=tuple(path_list(spec.value(key))),
        images_key=key,
        task=spec.inference.mode,
        policy=evaluation_policy(spec),
        image_size=(height, width) if spec.is_set("inference.image_size") else None,
        batch_size=spec.dataset.test.batch_size,
    )


def comparison_run(spec: Spec) -> ComparisonRun:
    """How `quantize` compares two models: devices, batch size and data are those of `evaluate`."""
    split = _scored_split(spec)
    scored = scoring(spec, dataset_files(spec, split), tasks(spec)) if getattr(spec.dataset, split).has_data else None
    size = spec.export.input_height, spec.export.input_width
    return ComparisonRun(chosen_model(spec, "evaluate", ""), size, scored)


def _scored_split(spec: Spec) -> Split:
    return "test" if spec.dataset.test.has_data else "val"
