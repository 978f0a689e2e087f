"""What a spec asks of data that does not define it: refused, or said with the keys to set."""

import pytest
from striped import Striped

from oneformer_jax.app.run.asked import asked_of_scores, asked_of_training, defined_score
from oneformer_jax.errors import SpecError
from oneformer_jax.tasks import TASKS

CAT, CROWD, SKY = (0, False), (0, True), (2, False)
EQUAL = dict.fromkeys(TASKS, 1.0)


def said_of(dataset: Striped, *tasks: str) -> list[str]:
    said: list[str] = []
    asked_of_scores(dataset, [task for task in TASKS if task in (tasks or TASKS)], said.append)
    return said


def test_all_is_defined_where_things_and_stuff_are_shown() -> None:
    assert said_of(Striped([[CAT, (1, False), SKY]])) == []


def test_scores_without_a_value_are_said_with_the_key_to_set() -> None:
    (instances, classes) = said_of(Striped([[SKY, CROWD]]))
    assert instances.startswith("AP, AP50, AP75 will have no value: no thing (a class with isthing: 1) is annotated in")
    assert instances.endswith("set model.test.instance_on: false")
    assert "1 of 3 classes has no segment in notes.json (class 1)" in classes
    (panoptic, _) = said_of(Striped([[CROWD]]), "panoptic")
    assert panoptic.startswith("PQ, SQ, RQ, PQ_things, ")
    assert panoptic.endswith("set model.test.panoptic_on: false and semantic_on: true")
    assert len(said_of(Striped([[], []]))) == 4


@pytest.mark.parametrize(
    ("tables", "tasks", "chosen"),
    [
        ([[CAT]], ("semantic", "instance"), "mIoU"),
        ([[SKY]], ("instance", "panoptic"), "PQ"),
        ([[CROWD]], ("instance", "panoptic", "semantic"), "mIoU"),
        ([[]], ("instance",), "AP"),
    ],
)
def test_the_score_that_is_not_given_is_the_first_that_is_defined(tables: list, tasks: tuple, chosen: str) -> None:
    assert defined_score("", Striped(tables), tasks, "train.monitor") == chosen


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            "AP",
            r"train.monitor: AP is never defined: notes.json .*\n  -> choose one of mIoU, pixel_accuracy, PQ",
        ),
        ("PQ_things", "PQ_things is never defined"),
        ("mIoU/one", r"mIoU/one is never defined: one has none .*"),
        ("mIoU/city", r"there is no data set called city\n  -> choose one of one, two, or mIoU"),
    ],
)
def test_a_score_that_is_never_defined_is_refused(given: str, words: str) -> None:
    dataset = Striped([[], [SKY]])
    with pytest.raises(SpecError, match=words):
        defined_score(given, dataset, TASKS, "train.monitor")


@pytest.mark.parametrize("given", ["mIoU", "PQ", "PQ_stuff", "mIoU/two", "SQ/two"])
def test_a_defined_score_stays(given: str) -> None:
    assert defined_score(given, Striped([[], [SKY]]), TASKS, "train.monitor") == given


def test_a_training_is_told_of_both_its_splits() -> None:
    said: list[str] = []
    full = [[CAT, (1, False), SKY, SKY, SKY]]
    chosen = asked_of_training(
        Striped(full), EQUAL, Striped([[SKY]], where="val.json"), ("instance", "panoptic"), "", said.append
    )
    assert chosen == "PQ"
    assert [line for line in said if "val.json" in line and "AP50" in line]
    assert not [line for line in said if "both" in line]
    assert asked_of_training(Striped(full), EQUAL, None, (), "", said.append) == "mIoU"


def test_one_file_for_training_and_validation_is_said() -> None:
    said: list[str] = []
    full = Striped([[CAT, (1, False), SKY, SKY, SKY]])
    asked_of_training(full, EQUAL, full, TASKS, "AP", said.append)
    assert said == [
        "dataset.train and dataset.val are both notes.json: the scores do not tell how new images will fare"
    ]
