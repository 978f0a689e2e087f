"""What a checkpoint was trained with against what it is used with: one table of answers."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import get_args

import pytest

from oneformer_jax.checkpoints.agreement import ANSWERS, Answer, Facts, Use, differences, settle
from oneformer_jax.checkpoints.description import Training
from oneformer_jax.data.datasets.categories import Categories, Category
from oneformer_jax.errors import CheckpointError
from oneformer_jax.postprocess.results import Thresholds

CATEGORIES = Categories((Category(7, "road", False, (1, 2, 3)), Category(9, "car", True, (4, 5, 6))))
TRAINING = Training(24, 4, "PQ", 7, {"lr": 0.1, "epochs": 2}, images=40, epochs=Fraction(5, 3))
WAS = Facts(CATEGORIES, Thresholds(), TRAINING, ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)))

CHANGES = {
    "classes": (
        Facts(Categories((CATEGORIES.items[0], Category(9, "bus", True, (4, 5, 6))))),
        "class 1 is 'bus' in what it is used with, but 'car' in the checkpoint",
    ),
    "order": (
        Facts(Categories(CATEGORIES.items[::-1])),
        "the classes from 0 on are 'car', 'road' in what it is used with, but 'road', 'car' in the checkpoint",
    ),
    "things": (
        Facts(Categories((CATEGORIES.items[0], Category(9, "car", False, (4, 5, 6))))),
        "'car' is stuff in what it is used with, but a thing in the checkpoint",
    ),
    "colours": (
        Facts(Categories((Category(7, "road", False, (0, 0, 0)), CATEGORIES.items[1]))),
        "'road' has the colour (0, 0, 0) in what it is used with, but (1, 2, 3) in the checkpoint",
    ),
    "statistics": (
        Facts(statistics=((1.0, 2.0, 3.0), (4.0, 5.0, 7.0))),
        "pixel mean and deviation: ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)) before, ((1.0, 2.0, 3.0), (4.0, 5.0, 7.0)) now",
    ),
    "thresholds": (
        Facts(thresholds=Thresholds(overlap_threshold=0.8)),
        "model.test: overlap_threshold 0.5 before, 0.8 now",
    ),
    "dataset_size": (Facts(training=replace(TRAINING, dataset_size=30)), "training images: 24 before, 30 now"),
    "images_per_step": (Facts(training=replace(TRAINING, images_per_step=8)), "images of a step: 4 before, 8 now"),
    "monitor": (Facts(training=replace(TRAINING, monitor="AP")), "train.monitor: PQ before, AP now"),
    "seed": (Facts(training=replace(TRAINING, seed=8)), "train.seed: 7 before, 8 now"),
    "schedule": (
        Facts(training=replace(TRAINING, schedule={"lr": 0.2, "epochs": 2})),
        "schedule: lr 0.1 before, 0.2 now",
    ),
}


def test_the_table_has_an_answer_for_every_difference_and_says_what_each_means() -> None:
    assert ANSWERS.keys() == CHANGES.keys()
    for answers in ANSWERS.values():
        assert answers.keys() <= set(get_args(Use))
        assert all(answer in get_args(Answer) and meaning for answer, meaning in answers.values())
    assert all("resume" in answers for answers in ANSWERS.values())
    refused = {what for what, answers in ANSWERS.items() if answers["resume"][0] == "refused"}
    assert refused == {"classes", "order", "things", "statistics"}


def test_the_page_shows_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[2:-1]] for line in page.splitlines() if line.startswith("| ")][2:]
    shown = [[cell.partition(":")[0] for cell in row] for row in rows]
    expected = [
        [answers[use][0] if use in answers else "" for use in ("resume", "fine-tune", "evaluate", "infer")]
        for answers in ANSWERS.values()
    ]
    assert [[cell[: len("goes on")] if "goes on" in cell else cell for cell in row] for row in shown] == expected


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("use", get_args(Use))
def test_what_differs_is_answered_by_the_table_with_the_old_and_the_new_value(what: str, use: Use) -> None:
    now, text = CHANGES[what]
    found = list(differences(use, WAS, now))
    if use not in ANSWERS[what]:
        assert found == []
        return
    answer, meaning = ANSWERS[what][use]
    assert found == [(what, text, answer, meaning)]
    said: list[str] = []
    warned: list[str] = []
    if answer == "refused":
        with pytest.raises(CheckpointError) as caught:
            settle(found, where="run/9", say=said.append, warn=warned.append)
        assert (caught.value.what, caught.value.where, caught.value.hint) == (text, "run/9", meaning)
        assert said + warned == []
    else:
        settle(found, where="run/9", say=said.append, warn=warned.append)
        assert (said, warned) == (([], [f"{text}: {meaning}"]) if answer == "warned" else ([f"{text}: {meaning}"], []))


def test_what_is_equal_or_not_known_makes_no_difference_and_nothing_is_said_before_a_refusal() -> None:
    for use in get_args(Use):
        assert list(differences(use, WAS, WAS)) == list(differences(use, Facts(), WAS)) == []
        assert list(differences(use, WAS, replace_progress(WAS))) == []
    said: list[str] = []
    both = Facts(CHANGES["order"][0].categories, training=CHANGES["seed"][0].training)
    with pytest.raises(CheckpointError):
        settle(differences("resume", WAS, both), where="", say=said.append, warn=said.append)
    assert said == []


def replace_progress(facts: Facts) -> Facts:
    """The same after more images."""
    assert facts.training is not None
    return facts._replace(training=replace(facts.training, images=99, epochs=Fraction(3)))
