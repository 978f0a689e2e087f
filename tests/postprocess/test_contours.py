"""Outlines of masks, against counting lines beside each pixel and against pycocotools' polygons."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Bool
from pycocotools import mask as coco_mask

from oneformer_jax.postprocess.contours import Ring, contours


def filled(rings: tuple[Ring, ...], height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """The pixels whose middle has an odd number of upright lines on its left."""
    inside = np.zeros((height, width), bool)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True):
            assert (x0 == x1) != (y0 == y1), "along the edges of pixels"
            if x0 == x1:
                for y in range(min(y0, y1), max(y0, y1)):
                    for x in range(x0, width):
                        inside[y, x] ^= True
    return inside


def area(ring: Ring) -> float:
    """Positive where it goes clockwise as a picture, whose y goes down, is seen."""
    x, y = ring.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def polygon(ring: Ring, height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """As pycocotools draws it."""
    runs = coco_mask.frPyObjects([ring.astype(float).ravel().tolist()], height, width)
    return coco_mask.decode(runs)[..., 0] > 0


@given(st.integers(1, 7), st.integers(1, 8), st.integers(0, 2**16), st.sampled_from([0.2, 0.5, 0.8, 1.0]))
def test_lines_bound_exactly_the_pixels(height: int, width: int, seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    rings = contours(mask)
    np.testing.assert_array_equal(filled(rings, height, width), mask)
    assert sum(map(area, rings)) == mask.sum(), "holes go the other way"
    drawn = np.zeros_like(mask)
    for ring in rings:
        drawn ^= polygon(ring, height, width)
    np.testing.assert_array_equal(drawn, mask)
    for ring in rings:
        turns = np.diff(np.vstack([ring, ring[:2]]), axis=0)
        assert (turns[1:] * turns[:-1] == 0).all(), "every corner is a turn"


def test_a_ring_has_two_lines_and_corners_do_not_connect() -> None:
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    outer, hole = contours(ring)
    assert outer.tolist() == [[0, 0], [3, 0], [3, 3], [0, 3]]
    assert hole.tolist() == [[1, 1], [1, 2], [2, 2], [2, 1]]
    assert [line.tolist() for line in contours(np.eye(2, dtype=bool))] == [
        [[0, 0], [1, 0], [1, 1], [0, 1]],
        [[1, 1], [2, 1], [2, 2], [1, 2]],
    ]
    assert len(contours(~np.eye(2, dtype=bool))) == 2
    assert contours(np.zeros((2, 2), bool)) == ()
