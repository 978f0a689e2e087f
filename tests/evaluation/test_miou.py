import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneformer_jax.evaluation.metrics import confusion_matrix, semantic_scores


def test_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1], [0, 2, 2, 1]])
    prediction = np.array([[0, 1, 1, 1], [0, 0, 2, 3]], np.uint8)
    valid = np.array([[True, True, True, True], [True, True, True, False]])
    confusion = confusion_matrix(prediction, truth, valid, 5)
    scores = semantic_scores(confusion)
    assert confusion.sum() == 7
    assert scores.per_class["IoU"][:3] == pytest.approx([2 / 4, 2 / 3, 1 / 2])
    assert np.isnan(scores.per_class["IoU"][3:]).all(), "class 3 was predicted on void only, class 4 nowhere"
    assert scores.overall["mIoU"] == pytest.approx((2 / 4 + 2 / 3 + 1 / 2) / 3)
    assert scores.overall["pixel_accuracy"] == pytest.approx(5 / 7)


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    truth, prediction = np.zeros((2, 2), int), np.array([[0, 0], [0, 1]])
    scores = semantic_scores(confusion_matrix(prediction, truth, np.ones((2, 2), bool), 3))
    assert scores.per_class["IoU"][:2] == pytest.approx([0.75, 0])
    assert scores.overall["mIoU"] == pytest.approx(0.375)


def test_nothing_but_void_is_undefined() -> None:
    scores = semantic_scores(confusion_matrix(np.ones((2, 2), int), np.zeros((2, 2), int), np.zeros((2, 2), bool), 3))
    assert math.isnan(scores.overall["mIoU"])
    assert math.isnan(scores.overall["pixel_accuracy"])


@given(seed=st.integers(0, 999), classes=st.integers(1, 9))
def test_is_the_set_definition(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    images = [(rng.integers(classes, size=(6, 5)), rng.integers(classes, size=(6, 5))) for _ in range(3)]
    valid = rng.random((6, 5)) < 0.7
    total = sum(confusion_matrix(p, t, valid, classes) for p, t in images)
    scores = semantic_scores(total)
    for k in range(classes):
        both = sum(((p == k) & (t == k) & valid).sum() for p, t in images)
        either = sum((((p == k) | (t == k)) & valid).sum() for p, t in images)
        assert (
            scores.per_class["IoU"][k] == pytest.approx(both / either)
            if either
            else np.isnan(scores.per_class["IoU"][k])
        )


@pytest.mark.tao(24)
def test_any_class_index_can_be_scored() -> None:
    """Void has no class of its own: none of 300 classes is lost, 255 and the last one included."""
    truth = np.array([[0, 254, 255, 256, 299, 299]])
    prediction = np.array([[0, 254, 255, 256, 299, 255]])
    valid = np.array([[True, True, True, True, True, True]])
    scores = semantic_scores(confusion_matrix(prediction, truth, valid, 300))
    assert scores.per_class["IoU"][[0, 254, 255, 256, 299]] == pytest.approx([1, 1, 1 / 2, 1, 1 / 2])
    assert np.isfinite(scores.per_class["IoU"]).sum() == 5


@pytest.mark.tao(13)
def test_counts_stay_exact_beyond_single_precision() -> None:
    """2^24 + 1 is the first integer that float32 rounds."""
    one_more = confusion_matrix(np.array([[1]]), np.array([[1]]), np.array([[True]]), 2)
    many = np.array([[0, 1], [0, 2**24]], np.int64)
    total = many + one_more
    assert (total.dtype, total[1, 1]) == (np.int64, 2**24 + 1)
    assert semantic_scores(total).per_class["IoU"][1] == (2**24 + 1) / (2**24 + 2)
