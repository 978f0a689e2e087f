"""What a checkpoint was trained with, compared with what it is used with now: one comparison, one table of answers.

Free of JAX: an exported model is compared by it, too.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from oneformer_jax.data.datasets.categories import Categories, disagreements
from oneformer_jax.errors import CheckpointError
from oneformer_jax.postprocess.results import Thresholds

if TYPE_CHECKING:
    from oneformer_jax.checkpoints.description import Description, Training

Use = Literal["resume", "fine-tune", "evaluate", "infer"]
"""`infer` is an export, too: a model and a label map, no annotations."""

Answer = Literal["goes on", "converted", "warned", "refused"]

NEW_RUN = "to begin a new run with its weights, name it in train.pretrained_model with another results_dir"
OTHER_DATA = "give the data that it was trained for; weights converted without class names: convert with --label-map"
OTHER_MAP = "leave dataset.label_map out, or give that of the training"

ANSWERS: dict[str, dict[Use, tuple[Answer, str]]] = {
    "classes": {
        "resume": ("refused", NEW_RUN),
        "fine-tune": ("converted", "the classifier starts anew"),
        "evaluate": ("refused", OTHER_DATA),
        "infer": ("refused", OTHER_MAP),
    },
    "order": {
        "resume": ("refused", NEW_RUN),
        "fine-tune": ("converted", "the classifier is put into the order of the data"),
        "evaluate": ("refused", OTHER_DATA),
        "infer": ("refused", OTHER_MAP),
    },
    "things": {
        "resume": ("refused", NEW_RUN),
        "fine-tune": ("goes on", "the data decides"),
        "evaluate": ("warned", "the data decides"),
        "infer": ("warned", "the label map decides"),
    },
    "colours": {
        "resume": ("goes on", "the new ones are drawn"),
        "infer": ("goes on", "the label map's are drawn"),
    },
    "statistics": {
        "resume": ("refused", "give those of the training; " + NEW_RUN),
        "fine-tune": ("warned", "the weights see other numbers than they learned from"),
        "evaluate": ("warned", "the model's count"),
        "infer": ("warned", "the model's count"),
    },
    "thresholds": {
        "resume": ("warned", "scores before and after do not compare"),
        "evaluate": ("warned", "what the spec sets counts"),
        "infer": ("warned", "what the spec sets counts"),
    },
    "dataset_size": {"resume": ("converted", "it goes on in the same epoch")},
    "images_per_step": {"resume": ("converted", "it goes on at the same image, in the same place of the schedule")},
    "monitor": {"resume": ("converted", "the best checkpoint is chosen anew")},
    "seed": {"resume": ("warned", "images come in another order")},
    "schedule": {"resume": ("goes on", "it goes on in the same place of the new schedule")},
}
"""What differs -> what the checkpoint is used for -> the answer, and what it means or what to do. What is not listed is
not compared."""

IN_WORDS = {
    "statistics": "pixel mean and deviation",
    "thresholds": "model.test",
    "dataset_size": "training images",
    "images_per_step": "images of a step",
    "monitor": "train.monitor",
    "seed": "train.seed",
    "schedule": "schedule",
}


Colour = tuple[float, float, float]
Statistics = tuple[Colour, Colour]
"""Mean and deviation of R, G, B on 0..255."""


class Facts(NamedTuple):
    """What is compared; None: not known, or not asked for."""

    categories: Categories | None = None
    thresholds: Thresholds | None = None
    training: "Training | None" = None
    statistics: Statistics | None = None

    @classmethod
    def of(cls, description: "Description") -> "Facts":
        """All that a checkpoint says."""
        statistics = (description.pixel_mean, description.pixel_std)
        return cls(description.categories, description.thresholds, description.training, statistics)


class Difference(NamedTuple):
    """What differs, in words with the old and the new value; the answer, and what it means or what to do."""

    what: str
    text: str
    answer: Answer
    meaning: str


def differences(use: Use, was: Facts, now: Facts) -> Iterator[Difference]:
    """What the checkpoint says and what it is used with, as far as both are known."""
    for what, text in _compared(was, now):
        if use in ANSWERS[what]:
            yield Difference(what, text, *ANSWERS[what][use])


def _compared(was: Facts, now: Facts) -> Iterator[tuple[str, str]]:
    if was.categories and now.categories:
        found = disagreements((was.categories, "the checkpoint"), (now.categories, "what it is used with"))
        yield from ((aspect, text) for aspect, text in found.items() if aspect in ANSWERS)
    if was.statistics and now.statistics and not np.allclose(was.statistics, now.statistics, rtol=1e-4, atol=1e-3):
        yield "statistics", f"{IN_WORDS['statistics']}: {was.statistics} before, {now.statistics} now"
    pairs = {"thresholds": (was.thresholds, now.thresholds)} | {
        name: (getattr(was.training, name, None), getattr(now.training, name, None))
        for name in ("dataset_size", "images_per_step", "monitor", "seed", "schedule")
    }
    for name, (old, new) in pairs.items():
        if old is not None and new is not None and old != new:
            yield name, f"{IN_WORDS[name]}: {_changes(old, new)}"


def _changes(old: Any, new: Any) -> str:
    """Of what has parts, those that differ."""
    if isinstance(old, Thresholds):
        old, new = vars(old), vars(new)
    if not isinstance(old, dict):
        return f"{old} before, {new} now"
    names = [name for name in old | new if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {old.get(name)} before, {new.get(name)} now" for name in names)


def settle(found: Iterable[Difference], *, where: str, say: Callable[[str], None], warn: Callable[[str], None]) -> None:
    """Says what goes on or is converted, and warns. Raises CheckpointError, before, with all that is refused."""
    found = list(found)
    refused = [difference for difference in found if difference.answer == "refused"]
    if refused:
        hint = "\n  -> ".join(dict.fromkeys(difference.meaning for difference in refused))
        raise CheckpointError("; ".join(difference.text for difference in refused), where=where, hint=hint)
    for difference in found:
        tell = warn if difference.answer == "warned" else say
        tell(f"{difference.text}: {difference.meaning}")
