"""What devices decide beside the rules for all pixels in float64, for two pictures of different sizes in one batch.

The rules are those of test_exact.py, where NumPy's decisions may not differ at any pixel. Devices compute in float32,
so here a pixel is left out whose decision is closer than that rounds.
"""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh
from postprocess.pixel_cases import Case, cases, first_of_the_largest, sigmoid
from pycocotools import mask as coco_mask
from tiers import examples

from oneformer_jax.data.geometry import Geometry
from oneformer_jax.postprocess.results import (
    Thresholds,
    instance_segmentation,
    panoptic_segmentation,
    semantic_map,
)
from oneformer_jax.postprocess.tiles import ROUNDING, softmax
from oneformer_jax.predict.on_device import instance, panoptic
from oneformer_jax.predict.on_device.sampling import each_image, room_for, sampling_of
from oneformer_jax.predict.on_device.semantic import class_map

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]

# A picture of one row, one wider than an array's room of 128 pixels; both lie in 64x96.
GEOMETRIES = Geometry((65, 63), (64, 96), (64, 96)), Geometry((1, 130), (7, 80), (64, 96))
QUERIES, CLASSES, TOP = 9, 6, 12
IS_THING = np.array([True, False, True, True, False, True])
MESH = Mesh(np.array(jax.devices("cpu")[:1]), ("data",))
SEMANTIC = each_image(class_map, MESH)
PANOPTIC = each_image(panoptic.owned, MESH)
INSTANCE = each_image(partial(instance.found, count=TOP), MESH)
Batch = tuple[Case, Case]


def batches() -> st.SearchStrategy[Batch]:
    return st.tuples(*(cases([geometry], (QUERIES, QUERIES), (CLASSES, CLASSES)) for geometry in GEOMETRIES))


def inputs(batch: Batch) -> tuple:
    """Class logits with these probabilities, mask logits, where pixels take them from."""
    classes, masks = (np.stack(arrays) for arrays in (list(map(class_logits, batch)), [c.mask_logits for c in batch]))
    return classes, masks, sampling_of([case.geometry for case in batch], masks.shape[2:])


def class_logits(case: Case) -> np.ndarray:
    rest = np.maximum(1 - case.probabilities.sum(axis=1, keepdims=True), 1e-30)
    with np.errstate(divide="ignore"):
        return np.log(np.concatenate([case.probabilities, rest], axis=1)).clip(-80).astype(np.float32)


def rounding(case: Case) -> float:
    """The fraction of a probability, or of a sum of them, by which float32 may be off."""
    return 3 * ROUNDING * max(abs(case.mask_logits).max(), 1) + 2 * QUERIES * ROUNDING


def close(scores: np.ndarray, case: Case) -> np.ndarray:
    """Where one of the others is within the rounding of the largest, or float32 has no digits left."""
    best = scores.max(axis=0)
    return ((scores >= best * (1 - rounding(case))).sum(axis=0) > 1) | (best < 1e-30)


def at_size(x: np.ndarray, case: Case) -> np.ndarray:
    height, width = case.geometry.original
    return x[:height, :width]


@settings(max_examples=examples(20))
@given(batch=batches())
def test_classes(batch: Batch) -> None:
    found = jax.device_get(SEMANTIC(*inputs(batch)))
    assert found.dtype == np.uint8
    for row, case in enumerate(batch):
        votes = softmax(class_logits(case).astype(np.float64))[:, :-1]
        sums = np.einsum("qk,qhw->khw", votes, sigmoid(case.full))
        clear = ~close(sums, case)
        np.testing.assert_array_equal(at_size(found[row], case)[clear], sums.argmax(axis=0)[clear])


@settings(max_examples=examples(20))
@given(batch=batches(), least=st.sampled_from([0.0, 0.31, 0.77]))
def test_owners(batch: Batch, least: float) -> None:
    found = jax.device_get(PANOPTIC(*inputs(batch), np.full(2, least, np.float32)))
    for row, case in enumerate(batch):
        probabilities = softmax(class_logits(case))
        of_image = panoptic.Owned(*(field[row] for field in found))
        np.testing.assert_allclose(of_image.scores, probabilities.max(axis=1), rtol=1e-5)
        best = np.take_along_axis(probabilities, of_image.labels[:, None], axis=1)[:, 0]
        np.testing.assert_allclose(best, probabilities.max(axis=1), rtol=1e-5)
        kept = (of_image.labels != CLASSES) & (of_image.scores > np.float32(least))
        owner = at_size(of_image.owner, case)
        if not kept.any():
            assert (owner == QUERIES).all()
            continue
        strength = np.where(kept, of_image.scores, 0)[:, None, None] * sigmoid(case.full)
        winner, unclear = first_of_the_largest(strength)
        clear = ~unclear & ~close(strength, case)
        holds = np.take_along_axis(case.full, winner[None], axis=0)[0] >= 0
        sure = clear & ~np.take_along_axis(case.near_zero, winner[None], axis=0)[0]
        np.testing.assert_array_equal(owner[sure], np.where(holds, winner, QUERIES)[sure])
        np.testing.assert_array_equal(np.bincount(owner[owner < QUERIES], minlength=QUERIES), of_image.seen)
        difference = of_image.won - np.bincount(winner.ravel(), minlength=QUERIES)
        assert abs(difference).sum() <= 2 * (~clear).sum()
        held = (case.full >= 0).sum((1, 2)) * kept
        assert (abs(of_image.held - held) <= case.near_zero.sum((1, 2))).all()


@settings(max_examples=examples(20))
@given(batch=batches())
def test_masks(batch: Batch) -> None:
    arrays = inputs(batch)
    found, words = jax.device_get(INSTANCE(*arrays, np.stack([IS_THING] * 2)))
    room = room_for([case.geometry.original for case in batch])
    for row, case in enumerate(batch):
        of_image = jax.tree.map(lambda x, row=row: x[row], found)
        probabilities = softmax(class_logits(case))[:, :-1]
        pairs = of_image.pairs
        best = np.sort(probabilities, axis=None)[::-1][:TOP]
        np.testing.assert_allclose(pairs.probability, best, rtol=1e-4, atol=1e-30)
        np.testing.assert_allclose(probabilities[pairs.query, pairs.label], best, rtol=1e-4, atol=1e-30)
        np.testing.assert_array_equal(pairs.is_thing, IS_THING[pairs.label])
        assert len({*zip(pairs.query.tolist(), pairs.label.tolist(), strict=True)}) == TOP
        size = case.geometry.original
        all_words = instance.shown(of_image, words[row], room, size)
        if of_image.changes.are_all:
            assert instance.shown(of_image, None, room, size) == all_words
        chosen = sorted(set(pairs.query[pairs.is_thing].tolist()))
        assert of_image.chosen[: len(chosen)].tolist() == chosen
        by_query = {query: case.full[query] for query in chosen}
        assert len(all_words) <= pairs.is_thing.sum()
        for one in all_words:
            inside = coco_mask.decode(one.mask).astype(bool)
            fits = [
                (inside == (full > 0))[~case.near_zero[query]].all()
                and one.score
                == pytest.approx(
                    float(probabilities[query, one.category]) * sigmoid(full)[inside].mean(), rel=1e-4, abs=2e-5
                )
                for query, full in by_query.items()
            ]
            assert any(fits)
        empty = sum(not (by_query[q] > -1e-3).any() for q in pairs.query[pairs.is_thing].tolist())
        assert (
            empty
            <= pairs.is_thing.sum() - len(all_words)
            <= sum(
                not (by_query[q] > 1e-5 * abs(case.mask_logits).max()).any()
                for q in pairs.query[pairs.is_thing].tolist()
            )
        )


def test_golden(golden) -> None:
    """The results that the published code has of one image, and those of NumPy."""
    thresholds = Thresholds(0.1, 0.5, 20)
    of_image = golden.class_logits, golden.mask_logits, golden.geometry
    classes, masks = golden.class_logits[None], golden.mask_logits[None]
    sampling = sampling_of([golden.geometry], masks.shape[2:])
    size = golden.geometry.original

    top = np.sort(golden.sem_seg, axis=0)
    clear = top[-1] - top[-2] > 1e-4
    found = jax.device_get(SEMANTIC(classes, masks, sampling))[0, : size[0], : size[1]]
    np.testing.assert_array_equal(found[clear], semantic_map(*of_image)[clear])
    assert (found != semantic_map(*of_image)).mean() < 1e-3

    least = np.full(1, thresholds.object_mask_threshold, np.float32)
    owned = panoptic.Owned(*(field[0] for field in jax.device_get(PANOPTIC(classes, masks, sampling, least))))
    result = panoptic.segmented(owned, size, golden.is_thing, thresholds.overlap_threshold)
    expected = panoptic_segmentation(*of_image, golden.is_thing, thresholds)
    assert expected.segments
    np.testing.assert_array_equal(result.ids, expected.ids)
    assert [s.category for s in result.segments] == [s.category for s in expected.segments]
    assert [s.area for s in result.segments] == [s.area for s in expected.segments]
    np.testing.assert_allclose([s.score for s in result.segments], [s.score for s in expected.segments], rtol=1e-5)

    program = each_image(partial(instance.found, count=thresholds.test_topk_per_image), MESH)
    found, words = jax.device_get(program(classes, masks, sampling, golden.is_thing[None]))
    shown = instance.shown(jax.tree.map(lambda x: x[0], found), words[0], room_for([size]), size)
    expected = instance_segmentation(*of_image, golden.is_thing, thresholds)
    assert [i.category for i in shown] == [i.category for i in expected]
    assert [i.mask for i in shown] == [i.mask for i in expected]
    np.testing.assert_allclose([i.score for i in shown], [i.score for i in expected], rtol=1e-5)


def test_more_classes_than_a_byte_counts_and_no_thing() -> None:
    """A map of 257 classes; no instance where no pair is a thing."""
    logits = np.full((1, 1, 258), -9, np.float32)
    logits[..., 256] = 9
    sampling = sampling_of([Geometry((4, 5), (4, 4), (4, 4))], (1, 1))
    masks = np.ones((1, 1, 1, 1), np.float32)
    found = jax.device_get(SEMANTIC(logits, masks, sampling))
    assert found.dtype == np.uint16
    assert (found[0, :4, :5] == 256).all()
    found, words = jax.device_get(INSTANCE(logits, masks, sampling, np.zeros((1, 257), bool)))
    assert not words.any()
    assert instance.shown(jax.tree.map(lambda x: x[0], found), None, (128, 128), (4, 5)) == ()
