from collections import defaultdict

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiers import examples

from oneformer_jax.data.datasets.coco_panoptic import segment_rows
from oneformer_jax.data.datasets.dataset import VOID, Segment
from oneformer_jax.evaluation.metrics import GroundTruth, PanopticCounts, count_segments, panoptic_scores
from oneformer_jax.postprocess.results import PanopticResult, PanopticSegment


def truth_of(ids: np.ndarray, segments: list[Segment]) -> GroundTruth:
    return GroundTruth.from_segments(segment_rows(ids, segments)[None], segments)


def result_of(ids: np.ndarray, categories: list[int]) -> PanopticResult:
    segments = tuple(
        PanopticSegment(i, category, True, 1.0, int((ids == i).sum())) for i, category in enumerate(categories, start=1)
    )
    return PanopticResult(ids.astype(np.int32), segments)


def count_by_sets(ids, categories, truth_ids, segments) -> dict[int, list[float]]:
    """The definition with sets of pixels: class -> [TP, FP, FN, sum of IoU]."""

    def pixels(image: np.ndarray, value: int) -> set[int]:
        return set(np.flatnonzero(image.ravel() == value).tolist())

    predicted = {i: (pixels(ids, i), category) for i, category in enumerate(categories, start=1)}
    void = set(range(ids.size)) - set().union(*(pixels(truth_ids, s.id) for s in segments), set())
    crowd = {s.category: pixels(truth_ids, s.id) for s in segments if s.iscrowd}
    counts: dict[int, list[float]] = defaultdict(lambda: [0, 0, 0, 0.0])
    matched = set()
    for segment in segments:
        if segment.iscrowd:
            continue
        real = pixels(truth_ids, segment.id)
        for i, (found, category) in predicted.items():
            union = real | (found - void)
            if category == segment.category and union and len(real & found) / len(union) > 0.5:
                matched.add(i)
                counts[category][0] += 1
                counts[category][3] += len(real & found) / len(union)
                break
        else:
            counts[segment.category][2] += 1
    for i, (found, category) in predicted.items():
        ignored = found & (void | crowd.get(category, set()))
        if i not in matched and len(ignored) * 2 <= len(found):
            counts[category][1] += 1
    return counts


@st.composite
def annotated_images(draw):
    """A true partition and a prediction that disturbs it, with void, crowds, wrong classes and segments that are listed
    and have no pixel: those are missed, as in panopticapi."""
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    size, true_count = (12, 15), draw(st.integers(0, 6))
    truth_ids = rng.integers(0, true_count + 1, size=(4, 5)).repeat(3, 0).repeat(3, 1) * 1000
    values = [int(value) for value in np.unique(truth_ids) if value > 0]
    values += [7001 + number for number in range(draw(st.integers(0, 2)))]
    segments = [Segment(value, int(rng.integers(3)), bool(rng.random() < 0.25)) for value in values]
    rng.shuffle(segments)
    noise = rng.random(size) < draw(st.sampled_from([0.0, 0.2, 0.5]))
    raw = np.where(noise, rng.integers(0, 4, size=size) * 1000, np.roll(truth_ids, draw(st.integers(0, 2)), axis=1))
    ids = np.unique(np.append(raw, 0), return_inverse=True)[1][:-1].reshape(size)
    by_id = {segment.id: segment.category for segment in segments}
    categories = [
        by_id.get(int(value), 0) if rng.random() < 0.8 else int(rng.integers(3)) for value in np.unique(raw) if value
    ]
    return ids, categories, truth_ids.astype(np.int32), segments


@settings(max_examples=examples(200))
@given(annotated_images())
def test_is_the_definition_with_sets(case) -> None:
    ids, categories, truth_ids, segments = case
    counts = count_segments(result_of(ids, categories), truth_of(truth_ids, segments), 3)
    expected = count_by_sets(ids, categories, truth_ids, segments)
    for category in range(3):
        ours = (
            counts.true_positives[category],
            counts.false_positives[category],
            counts.false_negatives[category],
            counts.iou[category],
        )
        assert ours == pytest.approx(expected[category])


@settings(max_examples=examples(50))
@given(annotated_images())
def test_the_truth_as_prediction_is_perfect(case) -> None:
    _, _, truth_ids, segments = case
    segments = [segment._replace(iscrowd=False) for segment in segments]
    truth = truth_of(truth_ids, segments)
    shown = [row for row in range(len(segments)) if row in truth.index]
    assume(len(shown) == len(segments))
    perfect = result_of(truth.index + 1, [segment.category for segment in segments])
    scores = panoptic_scores(count_segments(perfect, truth, 3), np.array([True, False, True]))
    assert all(np.isnan(value) or value == 1 for value in scores.overall.values())
    assert np.isnan(scores.overall["PQ"]) == (not segments)


def test_void_and_crowd_by_hand() -> None:
    truth_ids = np.zeros((4, 10), np.int32)
    truth_ids[:, :4] = 7  # class 0
    truth_ids[:, 4:7] = 9  # crowd of class 1; the last three columns are void
    truth = truth_of(truth_ids, [Segment(7, 0, False), Segment(9, 1, True)])
    ids = np.zeros((4, 10), np.int32)
    ids[:2, :4] = 1  # class 0, exactly half of the true segment: no match
    ids[:, 4:6] = 2  # class 1 on its crowd: forgiven
    ids[:2, 7:] = 3  # class 2 on void: forgiven
    ids[2:, 6:8] = 4  # class 2, half on void: half is not enough
    counts = count_segments(result_of(ids, [0, 1, 2, 2]), truth, 3)
    assert counts.true_positives.tolist() == [0, 0, 0]
    assert counts.false_positives.tolist() == [1, 0, 1]
    assert counts.false_negatives.tolist() == [1, 0, 0]


def test_a_segment_without_pixels_is_missed_and_a_hidden_one_is_not() -> None:
    planes = np.full((2, 2, 4), VOID, np.int16)
    planes[0, :, :2], planes[0, :, 2:] = 0, 1
    planes[1] = 2  # behind both others
    truth = GroundTruth.from_segments(planes, [Segment(1 + row, row, False) for row in range(4)])
    ids = planes[0].astype(np.int32) + 1
    counts = count_segments(result_of(ids, [0, 1]), truth, 4)
    assert counts.true_positives.tolist() == [1, 1, 0, 0]
    assert counts.false_negatives.tolist() == [0, 0, 0, 1]


def test_averages_by_hand() -> None:
    counts = PanopticCounts(
        true_positives=np.array([2, 0, 0, 1]),
        false_positives=np.array([1, 3, 0, 0]),
        false_negatives=np.array([1, 0, 0, 0]),
        iou=np.array([1.5, 0.0, 0.0, 0.75]),
    )
    scores = panoptic_scores(counts, np.array([True, True, False, False]))
    assert scores.per_class["PQ"][[0, 1, 3]] == pytest.approx([0.5, 0, 0.75])
    assert scores.per_class["SQ"][[0, 1, 3]] == pytest.approx([0.75, 0, 0.75])
    assert scores.per_class["RQ"][[0, 1, 3]] == pytest.approx([2 / 3, 0, 1])
    assert np.isnan(scores.per_class["PQ"][2]), "class 2 occurs nowhere"
    assert [scores.overall[name] for name in ("PQ", "PQ_things", "PQ_stuff")] == pytest.approx([1.25 / 3, 0.25, 0.75])


def test_void_has_no_class() -> None:
    truth = truth_of(np.array([[3, 5, 0, 0]], np.int32), [Segment(5, 1, False), Segment(3, 0, True)])
    np.testing.assert_array_equal(truth.index, [[1, 0, VOID, VOID]])
    np.testing.assert_array_equal(truth.class_map(), [[0, 1, -1, -1]])
    np.testing.assert_array_equal(truth_of(np.zeros((2, 2), np.int32), []).class_map(), np.full((2, 2), -1))
