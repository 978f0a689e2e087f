"""What annotations define: which tasks can be learned from them and which scores they give a value."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from striped import COLUMNS, ROWS, Striped, Table
from tiers import examples

from oneformer_jax.data.datasets.content import Content, learned_from, never_shown, unlabelled_share
from oneformer_jax.errors import DataError
from oneformer_jax.evaluation.metrics import (
    GroundTruth,
    confusion_matrix,
    count_segments,
    mask_average_precision,
    panoptic_scores,
    semantic_scores,
    true_instances,
)
from oneformer_jax.evaluation.report import SCORES, is_defined
from oneformer_jax.postprocess.results import PanopticResult

ALL = {"semantic": 1.0, "instance": 1.0, "panoptic": 2.0}
tables = st.lists(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=3), min_size=1, max_size=3)


@settings(max_examples=examples(100))
@given(tables, st.sampled_from(["TTS", "TTT", "SSS"]))
def test_a_score_is_defined_where_it_has_a_value_though_nothing_is_found(found: list[Table], things: str) -> None:
    dataset = Striped(found, things)
    is_thing, content = dataset.categories.is_thing, Content.of(dataset)
    truths = [GroundTruth.from_segments(dataset.read_segments(i), r.segments) for i, r in enumerate(dataset.records)]
    nothing = PanopticResult(np.zeros((ROWS, COLUMNS), np.int32), ())
    counts = [count_segments(nothing, truth, 3) for truth in truths]
    maps = [truth.class_map() for truth in truths]
    confusion = sum(confusion_matrix(np.zeros_like(classes), classes, classes >= 0, 3) for classes in maps)
    real = [true_instances(truth, is_thing) for truth in truths]
    scores = {
        **semantic_scores(np.asarray(confusion)).overall,
        **mask_average_precision([()] * len(truths), real, [(ROWS, COLUMNS)] * len(truths), is_thing).overall,
        **panoptic_scores(sum(counts[1:], counts[0]), is_thing).overall,
    }
    for names in SCORES.values():
        for name in names:
            assert is_defined(name, content) == (not np.isnan(scores[name])), name


def test_void_and_crowds_are_no_labels() -> None:
    dataset = Striped([[(0, False), (2, False), (1, True)], [], [(0, False)] * 8])
    assert unlabelled_share(dataset) == pytest.approx((6 / 8 + 1 + 0) / 3)


def lines(found: list[Table], things: str = "TTS", **chances: float) -> list[str]:
    return list(learned_from(Striped(found, things), chances or ALL))


def test_only_a_semantic_task_that_is_scored_is_to_be_switched_off() -> None:
    mostly_void = Striped([[(0, False)] * 2], "TTS")
    for scored, advised in ((("semantic", "instance"), True), (("instance",), False)):
        said = "".join(learned_from(mostly_void, ALL, scored))
        assert "belong to no segment" in said
        assert ("model.test.semantic_on: false" in said) == advised


def test_where_all_can_be_learned_nothing_is_said() -> None:
    assert lines([[(0, False)] * 4 + [(2, False)] * 2, [(1, False)] * 6]) == []


@pytest.mark.parametrize(
    ("found", "things", "chances", "what"),
    [
        ([[], []], "TTS", ALL, "nothing can be learned: there is no segment"),
        (
            [[(0, True)], [(2, True), (1, True)]],
            "TTS",
            ALL,
            r"all 3 segments are crowds(.|\n)*set iscrowd: 0",
        ),
        ([[(2, False)], [(0, True)]], "TTS", {"instance": 1.0}, r"only the instance task is trained, and no thing"),
        ([[(0, False)]], "SSS", {"instance": 0.2, "semantic": 0.0}, r"(.|\n)*task_prob_train: {semantic: 1}"),
    ],
)
def test_nothing_to_learn_is_refused(found: list[Table], things: str, chances: dict, what: str) -> None:
    with pytest.raises(DataError, match=f"notes.json: .*{what}"):
        lines(found, things, **chances)


def test_a_task_without_targets_is_said_with_the_key_to_set() -> None:
    (said,) = lines([[(0, False), (1, False), (2, False)] * 2], "SSS")
    assert "the 25% of the samples that are of the instance task teach nothing" in said
    assert "set dataset.task_prob_train: {semantic: 1, panoptic: 2}" in said
    assert lines([[(0, False), (1, False), (2, False)] * 2], "SSS", semantic=1.0, panoptic=1.0) == []


def test_a_semantic_task_on_objects_in_void_is_said() -> None:
    objects = [[(0, False)], [(1, False)], [(2, False)]]
    (said,) = lines(objects, "TTT")
    assert "88% of the pixels in notes.json belong to no segment" in said
    assert "set dataset.task_prob_train: {instance: 1, panoptic: 2} and model.test.semantic_on: false" in said
    assert lines(objects, "TTT", semantic=1.0)[0].endswith("annotate the background as a class (isthing: 0)")
    assert lines(objects, "TTT", instance=1.0) == []


def test_unused_classes_are_named() -> None:
    (said,) = lines([[(0, False)] * 6 + [(1, True)]])
    assert said == "2 of 3 classes have no segment in notes.json, and cannot be learned: class 1, class 2"
    (said,) = never_shown(Content.of(Striped([[(0, False)] * 6 + [(1, True)]])), "notes.json")
    assert said.startswith("1 of 3 classes has no segment in notes.json (class 2): mIoU and PQ leave them out, unless")
    many = Striped([[(0, False)] * 6], "T" * 20)
    assert "class 9, class 10 and 9 more" in next(never_shown(Content.of(many), ""))


def test_means_leave_out_a_class_that_is_neither_shown_nor_predicted() -> None:
    """As the note on unused classes says: by hand."""
    left_out, counted = np.array([[3, 0, 0], [1, 4, 0], [0, 0, 0]]), np.array([[3, 0, 1], [0, 4, 0], [0, 0, 0]])
    assert semantic_scores(left_out).overall["mIoU"] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert semantic_scores(counted).overall["mIoU"] == pytest.approx((3 / 4 + 4 / 4 + 0) / 3)
