"""What the annotations of a data set define: the tasks and the classes that can be learned from it, and how much of its
images shows none of them."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from oneformer_jax.data.datasets.dataset import Dataset, front
from oneformer_jax.errors import DataError
from oneformer_jax.tasks import TASKS, Task

MUCH_VOID = 0.5
_SAMPLED = 32
_NAMES = 10


@dataclass(frozen=True)
class Content:
    """The segments of each class: `counted` are targets in training, `crowds` are none."""

    names: tuple[str, ...]
    is_thing: Bool[np.ndarray, " k"]
    counted: Int[np.ndarray, " k"]
    crowds: Int[np.ndarray, " k"]

    @classmethod
    def of(cls, dataset: Dataset, part: range | None = None) -> "Content":
        """That of a data set, or of a `part` of its records."""
        found = np.zeros((2, len(dataset.categories)), np.int64)
        for i in range(len(dataset)) if part is None else part:
            for segment in dataset.records[i].segments:
                found[int(segment.iscrowd), segment.category] += 1
        return cls(dataset.categories.names, dataset.categories.is_thing, found[0], found[1])

    @property
    def things(self) -> bool:
        """Whether any thing is annotated, crowds not counted."""
        return bool(self.counted[self.is_thing].any())

    @property
    def stuff(self) -> bool:
        """Whether any stuff is annotated, crowds not counted."""
        return bool(self.counted[~self.is_thing].any())

    def teaches(self, task: Task) -> bool:
        """Whether any image has a target of this task."""
        return self.things if task == "instance" else self.things or self.stuff

    def without(self, counts: Int[np.ndarray, " k"]) -> list[str]:
        """The classes of which `counts` has none."""
        return [name for name, count in zip(self.names, counts, strict=True) if not count]


def unlabelled_share(dataset: Dataset) -> float:
    """The share of the pixels that are void or crowds, as a mean over up to `_SAMPLED` images. Raises DataError."""
    shares = []
    for i in np.unique(np.linspace(0, len(dataset) - 1, _SAMPLED).astype(int)).tolist():
        is_target = np.array([not segment.iscrowd for segment in dataset.records[i].segments] + [False])  # last: VOID
        shares.append(1 - float(is_target[front(dataset.read_segments(i))].mean()))
    return float(np.mean(shares))


def learned_from(dataset: Dataset, task_prob: Mapping[str, float], scored: Collection[Task] = TASKS) -> Iterator[str]:
    """What a training with these chances of the tasks, which scores those of `scored`, cannot learn from a data set,
    and what to set that is not set: a line each.

    Raises DataError where it can learn nothing.
    """
    content = Content.of(dataset)
    _refuse_without_targets(content, dataset)
    drawn = {task: task_prob[task] / sum(task_prob.values()) for task in TASKS if task_prob.get(task)}
    idle = [task for task in drawn if not content.teaches(task)]
    if len(idle) == len(drawn):
        raise DataError(
            "nothing can be learned: only the instance task is trained, and no thing (a class with isthing: 1) is "
            "annotated but as a crowd",
            where=dataset.where,
            hint="set dataset.task_prob_train: {semantic: 1}, or isthing: 1 for the classes whose segments are objects",
        )
    for task in idle:
        yield (
            f"no thing (a class with isthing: 1) is annotated in {dataset.where}, so the {drawn[task]:.0%} of the "
            f"samples that are of the {task} task teach nothing; set {_without(task_prob, task)}"
        )
    if "semantic" in drawn and (share := unlabelled_share(dataset)) > MUCH_VOID:
        unscored = " and model.test.semantic_on: false" if "semantic" in scored else ""
        without = f", or set {_without(task_prob, 'semantic')}{unscored}"
        yield (
            f"{share:.0%} of the pixels in {dataset.where} belong to no segment. The semantic task gives every pixel "
            "one of the classes, so its result is arbitrary there, which no score shows: annotate the background as a "
            f"class (isthing: 0){without if len(drawn) > 1 else ''}"
        )
    if unused := content.without(content.counted):
        yield f"{_listed(unused, content)} no segment in {dataset.where}, and cannot be learned: {_names(unused)}"


def _without(task_prob: Mapping[str, float], left_out: Task) -> str:
    chances = ", ".join(f"{task}: {chance:g}" for task, chance in task_prob.items() if chance and task != left_out)
    return f"dataset.task_prob_train: {{{chances}}}"


def _refuse_without_targets(content: Content, dataset: Dataset) -> None:
    if content.teaches("panoptic"):
        return
    dropped = [note.what for note in dataset.notes]
    if content.crowds.any():
        raise DataError(
            f"nothing can be learned: all {content.crowds.sum()} segments are crowds (iscrowd: 1), which teach nothing",
            where=dataset.where,
            hint="some tools export brush masks as crowds: set iscrowd: 0 where a segment is one object, or stuff",
        )
    raise DataError(
        "nothing can be learned: there is no segment" + "".join(f"; {what}" for what in dropped),
        where=dataset.where,
        hint="annotate masks; a box alone is none",
    )


def _listed(names: list[str], content: Content) -> str:
    return f"{len(names)} of {len(content.names)} classes {'has' if len(names) == 1 else 'have'}"


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return f"{', '.join(names[:_NAMES])}{more}"


def never_shown(content: Content, where: str) -> Iterator[str]:
    """The classes without a segment in data that is scored, and what that does to the means: a line, or none."""
    if unused := content.without(content.counted + content.crowds):
        yield (
            f"{_listed(unused, content)} no segment in {where} ({_names(unused)}): mIoU and PQ leave them out, "
            "unless they are predicted, which counts as 0; AP leaves them out"
        )
