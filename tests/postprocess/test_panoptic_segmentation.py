import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import examples

from oneformer_jax.data.geometry import Geometry
from oneformer_jax.postprocess.results import PanopticResult, Thresholds, panoptic_segmentation


def published_rule(class_logits, full_logits, is_thing, thresholds) -> tuple[np.ndarray, list[int]]:
    """Segment ids and the class of each segment, one query after another."""
    scores, labels = torch.softmax(torch.from_numpy(class_logits), -1).max(-1)
    masks = torch.from_numpy(full_logits).sigmoid()
    keep = (labels != class_logits.shape[1] - 1) & (scores > thresholds.object_mask_threshold)
    ids, classes, stuff = np.zeros(full_logits.shape[1:], np.int32), [], {}
    if not keep.any():
        return ids, classes
    winner = (scores[keep][:, None, None] * masks[keep]).argmax(0)
    for query, (label, mask) in enumerate(zip(labels[keep].tolist(), masks[keep], strict=True)):
        won, own = (winner == query), (mask >= 0.5)
        visible = (won & own).numpy()
        if not visible.any() or won.sum() / own.sum() < thresholds.overlap_threshold:
            continue
        if not is_thing[label] and label in stuff:
            ids[visible] = stuff[label]
            continue
        classes.append(label)
        stuff[label] = len(classes)
        ids[visible] = len(classes)
    return ids, classes


def check_partition(result: PanopticResult, is_thing: np.ndarray) -> None:
    assert [segment.id for segment in result.segments] == list(range(1, len(result.segments) + 1))
    ids, areas = np.unique(result.ids[result.ids > 0], return_counts=True)
    assert dict(zip(ids.tolist(), areas.tolist(), strict=True)) == {s.id: s.area for s in result.segments}
    stuff = [segment.category for segment in result.segments if not segment.isthing]
    assert len(stuff) == len(set(stuff)), "a stuff class is one segment"
    assert all(segment.isthing == is_thing[segment.category] for segment in result.segments)
    assert all(0 < segment.score <= 1 for segment in result.segments)


def test_golden(golden) -> None:
    meta = json.loads(golden.meta)
    thresholds = Thresholds(meta["object_mask_threshold"], meta["overlap_threshold"], meta["topk"])
    result = panoptic_segmentation(
        golden.class_logits, golden.mask_logits, golden.geometry, golden.is_thing, thresholds
    )
    np.testing.assert_array_equal(result.ids, golden.panoptic_seg)
    ours = [{"id": s.id, "isthing": s.isthing, "category_id": s.category} for s in result.segments]
    assert ours == json.loads(str(golden.panoptic_segments_info))
    check_partition(result, golden.is_thing)


@pytest.mark.slow
@settings(max_examples=examples(60))
@given(
    seed=st.integers(0, 10_000),
    queries=st.integers(1, 14),
    object_mask=st.sampled_from([0.0, 0.3, 0.5, 0.8]),
    overlap=st.sampled_from([0.0, 0.5, 0.9]),
)
def test_is_the_published_rule_and_a_partition(seed, queries, object_mask, overlap, full_size_logits) -> None:
    rng = np.random.default_rng(seed)
    geometry = Geometry((70, 66), (40, 44), (64, 64))
    is_thing = np.array([True, False, True, False])
    class_logits = rng.normal(scale=3, size=(queries, 5)).astype(np.float32)
    mask_logits = rng.normal(scale=6, size=(queries, 8, 8)).astype(np.float32)
    thresholds = Thresholds(object_mask, overlap)
    result = panoptic_segmentation(class_logits, mask_logits, geometry, is_thing, thresholds)
    check_partition(result, is_thing)
    full = full_size_logits(mask_logits, geometry)
    expected, classes = published_rule(class_logits, full, is_thing, thresholds)
    assert [segment.category for segment in result.segments] == classes
    # Rounding may move single pixels on a border between two masks.
    assert (result.ids != expected).sum() <= 2


def test_nothing_is_kept() -> None:
    geometry = Geometry((9, 7), (8, 8), (8, 8))
    class_logits = np.array([[0.0, 0.0, 9.0]], np.float32)
    result = panoptic_segmentation(
        class_logits, np.ones((1, 2, 2), np.float32), geometry, np.array([True, False]), Thresholds()
    )
    assert result.segments == ()
    assert result.ids.shape == (9, 7)
    assert not result.ids.any()


def test_no_object_wins_over_a_probable_class() -> None:
    """TAO would keep this query: its best real class reaches 0.45."""
    geometry = Geometry((8, 8), (8, 8), (8, 8))
    class_logits = np.log(np.array([[0.45, 0.05, 0.5]], np.float32))
    result = panoptic_segmentation(
        class_logits, np.ones((1, 2, 2), np.float32), geometry, np.array([True, False]), Thresholds()
    )
    assert result.segments == ()
