"""What is left out changes nothing: the decisions of every pixel beside those of all queries at full size in float64.

The reference is written as the rule reads: PyTorch resizes, crops and resizes, then sigmoid and sums or products, then
the largest, where what agrees to twelve digits is a tie that goes to the first. No pixel may differ, except that a
mask may end a pixel further where its logit is 0 within the rounding of float32.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from postprocess.pixel_cases import Case, cases, first_of_the_largest, sigmoid
from pycocotools import mask as coco_mask
from tiers import examples

from oneformer_jax.postprocess.instance import binary_masks
from oneformer_jax.postprocess.panoptic import owners
from oneformer_jax.postprocess.semantic import class_map
from oneformer_jax.postprocess.tiles import Tiles

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.slow
@settings(max_examples=examples(40))
@given(case=cases())
def test_classes(case: Case) -> None:
    sums = np.einsum("qk,qhw->khw", case.probabilities.astype(np.float64), sigmoid(case.full))
    expected, unclear = first_of_the_largest(sums)
    found = class_map(case.probabilities, Tiles(case.mask_logits, case.geometry))
    np.testing.assert_array_equal(found[~unclear], expected[~unclear])


@pytest.mark.slow
@settings(max_examples=examples(40))
@given(case=cases())
def test_owners(case: Case) -> None:
    scores = case.probabilities.max(axis=1)
    winner, unclear = first_of_the_largest(sigmoid(case.full) * scores[:, None, None].astype(np.float64))
    holds = np.take_along_axis(case.full, winner[None], axis=0)[0] >= 0
    clear = ~unclear & ~np.take_along_axis(case.near_zero, winner[None], axis=0)[0]
    found = owners(scores, Tiles(case.mask_logits, case.geometry))
    np.testing.assert_array_equal(found.owner[clear], np.where(holds, winner, len(scores))[clear])
    difference = found.won - np.bincount(winner.ravel(), minlength=len(scores))
    assert abs(difference).sum() <= 2 * unclear.sum()
    assert (abs(found.held - (case.full >= 0).sum((1, 2))) <= case.near_zero.sum((1, 2))).all()


@pytest.mark.slow
@settings(max_examples=examples(40))
@given(case=cases())
def test_masks(case: Case) -> None:
    masks, quality = binary_masks(case.mask_logits, case.geometry)
    for mask, mean, full, near_zero in zip(masks, quality, case.full, case.near_zero, strict=True):
        inside = coco_mask.decode(mask).astype(bool)
        assert inside.shape == case.geometry.original
        np.testing.assert_array_equal(inside[~near_zero], (full > 0)[~near_zero])
        expected = sigmoid(full)[inside].mean() if inside.any() else 0
        assert mean == pytest.approx(expected, abs=2e-5)
