"""What a spec asks of its data, held against what the data defines: refused where there is no answer, else said, before
the first step."""

from collections.abc import Callable, Mapping, Sequence

from oneformer_jax.data.datasets.content import Content, learned_from, never_shown
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.errors import SpecError
from oneformer_jax.evaluation.report import SCORES, is_defined
from oneformer_jax.tasks import TASKS, Task

Warn = Callable[[str], None]


def asked_of_training(
    train: Dataset,
    task_prob: Mapping[str, float],
    val: Dataset | None,
    tasks: Sequence[Task],
    score: str,
    warn: Warn,
    *,
    key: str = "train.monitor",
) -> str:
    """Says what a training with these chances of the tasks cannot learn or, of the `tasks` that it validates, cannot
    score. Returns the score that decides which checkpoint is the best: `score`, which `key` gives, or a defined one.

    Raises DataError where nothing can be learned, SpecError where the score is never defined.
    """
    for line in learned_from(train, task_prob, tasks):
        warn(line)
    if val is None:
        return score or SCORES["semantic"][0]
    if val.where == train.where:
        warn(f"dataset.train and dataset.val are both {val.where}: the scores do not tell how new images will fare")
    asked_of_scores(val, tasks, warn)
    return defined_score(score, val, tasks, key)


def asked_of_scores(dataset: Dataset, tasks: Sequence[Task], warn: Warn) -> None:
    """Says which scores of the `tasks` a data set does not define, and which classes it does not show."""
    content = Content.of(dataset)
    for task in tasks:
        if not is_defined(SCORES[task][0], content):
            missing = "thing (a class with isthing: 1)" if task == "instance" else "segment"
            others = [other for other in TASKS if is_defined(SCORES[other][0], content)] if len(tasks) == 1 else []
            warn(
                f"{', '.join(SCORES[task])} will have no value: no {missing} is annotated in {dataset.where} but as a "
                f"crowd; set model.test.{task}_on: false{f' and {others[0]}_on: true' if others else ''}"
            )
    for line in never_shown(content, dataset.where):
        warn(line)


def defined_score(given: str, dataset: Dataset, tasks: Sequence[Task], key: str) -> str:
    """The `given` score or, where that is "", the first of the tasks that the data set defines.

    Raises SpecError where the data set never defines the given one, which `key` gives.
    """
    whole = Content.of(dataset)
    defined = [score for task in tasks for score in SCORES[task] if is_defined(score, whole)]
    firsts = [SCORES[task][0] for task in tasks]
    if not given:
        return next((score for score in firsts if score in defined), firsts[0])
    score, slash, name = given.partition("/")
    several = dataset.parts if len(dataset.parts) > 1 else {}
    if slash and name not in several:
        known = f"choose one of {', '.join(several)}, or" if several else "there is only one: set"
        raise SpecError(
            f"{given} is never defined: there is no data set called {name}", where=key, hint=f"{known} {score}"
        )
    part = Content.of(dataset, several[name]) if slash else whole
    if not is_defined(score, part):
        raise SpecError(
            f"{given} is never defined: {name or dataset.where} has none of the segments that it is about, crowds not "
            "counted",
            where=key,
            hint=f"choose one of {', '.join(defined)}" if defined else "annotate masks",
        )
    return given
