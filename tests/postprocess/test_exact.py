"""What is left out changes nothing: the decisions of every pixel beside those of all queries at full size in float64.

The reference is written as the rule reads: PyTorch resizes, crops and resizes, then sigmoid and sums or products, then
the largest, where what agrees to twelve digits is a tie that goes to the first. No pixel may differ, except that a
mask may end a pixel further where its logit is 0 within the rounding of float32.
"""

from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from tiers import examples

from oneformer_jax.data.geometry import Geometry, letterbox, short_edge
from oneformer_jax.postprocess.instance import binary_masks
from oneformer_jax.postprocess.panoptic import owners
from oneformer_jax.postprocess.semantic import class_map
from oneformer_jax.postprocess.tiles import Tiles, softmax

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

GEOMETRIES = (
    Geometry((192, 200), (192, 200), (192, 224)),
    short_edge((150, 131), 96, 160),
    letterbox((50, 330), (96, 96)),
    Geometry((65, 64), (64, 96), (64, 96)),
    Geometry((1, 130), (7, 64), (32, 64)),
)


class Case(NamedTuple):
    probabilities: np.ndarray  # (q, k)
    mask_logits: np.ndarray  # (q, h, w)
    geometry: Geometry
    full: np.ndarray  # logits of all pixels, float64 (q, height, width)

    @property
    def near_zero(self) -> np.ndarray:
        """Where float32 may give a logit the other sign."""
        return abs(self.full) <= 1e-5 * abs(self.mask_logits).max()


@st.composite
def cases(draw) -> Case:
    """From smooth masks of sharp borders to noise, from a few queries that matter to all; with equals of some."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    geometry = draw(st.sampled_from(GEOMETRIES))
    queries, classes = draw(st.integers(1, 24)), draw(st.integers(1, 40))
    height, width = (-(-edge // 4) for edge in geometry.padded)
    cells = draw(st.sampled_from([2, 5, 1000]))
    noise = rng.normal(size=(1, queries, min(cells, height), min(cells, width)))
    masks = F.interpolate(torch.from_numpy(noise), size=(height, width), mode="bilinear")[0].numpy()
    masks = masks * draw(st.sampled_from([0.0, 0.3, 6.0, 60.0, 1e4])) + draw(st.sampled_from([0.0, -8.0, 40.0]))
    logits = rng.normal(size=(queries, classes + 1)) * draw(st.sampled_from([0.0, 1.0, 5.0]))
    logits[rng.random(queries) < draw(st.sampled_from([0.0, 0.5, 0.9])), -1] += 9
    probabilities, masks = softmax(logits.astype(np.float32))[:, :-1], masks.astype(np.float32)
    if draw(st.booleans()):  # equals: ties, and what float32 cannot tell apart
        probabilities[:, classes // 2], probabilities[-1], masks[-1] = probabilities[:, 0], probabilities[0], masks[0]
        larger = rng.random(probabilities.shape) < draw(st.sampled_from([0.0, 0.1, 0.5]))
        probabilities = np.where(larger, np.nextafter(probabilities, np.float32(2)), probabilities)
    padded = F.interpolate(torch.from_numpy(masks).double()[None], size=geometry.padded, mode="bilinear")
    cropped = padded[:, :, : geometry.resized[0], : geometry.resized[1]]
    full = F.interpolate(cropped, size=geometry.original, mode="bilinear")[0].numpy()
    return Case(probabilities, masks, geometry, full)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return torch.from_numpy(x).sigmoid().numpy()


def first_of_the_largest(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Along the first axis, and where it is open whether another one is a tie, or float64 has no digits left."""
    best = scores.max(axis=0)
    missing = 1 - scores / np.maximum(best, np.finfo(float).tiny)
    unclear = ((missing > 5e-13) & (missing < 2e-12)).any(axis=0) | (best < 1e-290)
    return (missing < 1e-12).argmax(axis=0), unclear


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
