"""Which pictures of an evaluation are kept, and what makes one good, against sorting and loops over pixels."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from oneformer_jax.data.datasets.dataset import VOID, Segment
from oneformer_jax.evaluation.gallery import Gallery, as_panoptic, quality_of_things, things_alone
from oneformer_jax.evaluation.metrics import GroundTruth, count_segments
from oneformer_jax.postprocess.results import Instance, PanopticResult, PanopticSegment, Result

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
IS_THING = np.array([True, False, True])


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan]), max_size=20), st.integers(0, 5), st.integers(0, 5))
def test_the_worst_and_the_best_are_kept(qualities: list[float], worst: int, best: int) -> None:
    """The first ones of those that are alike; each once."""
    gallery = Gallery(worst, best)
    for number, quality in enumerate(qualities):
        gallery(number, quality, Result())
    known = [number for number, quality in enumerate(qualities) if not math.isnan(quality)]
    expected = sorted(known, key=lambda number: qualities[number])[:worst]
    assert [seen.number for seen in gallery.worst] == expected
    top = sorted(known, key=lambda number: -qualities[number])[:best]
    assert [seen.number for seen in gallery.best] == [number for number in top if number not in expected]


def instance(category: int, score: float, mask: np.ndarray) -> Instance:
    encoded = coco_mask.encode(np.asfortranarray(mask).view(np.uint8))
    return Instance(category, score, encoded, tuple(coco_mask.toBbox(encoded).tolist()))


def test_things_are_as_good_as_they_are_found() -> None:
    """Two things and stuff; one thing is found by two of three rows, another one predicted over the stuff."""
    planes = np.full((1, 8, 9), VOID, np.int16)
    planes[0, :3, :4], planes[0, 4:, :4], planes[0, :, 5:] = 0, 1, 2
    truth = GroundTruth.from_segments(planes, [Segment(1, 0, False), Segment(2, 2, False), Segment(3, 1, False)])
    part, false = np.zeros((2, 8, 9), bool)
    part[:2, :4], false[4:, 5:] = True, True
    found = [instance(0, 0.9, part), instance(0, 0.2, false)]
    assert quality_of_things(found[:1], truth, IS_THING, 0.5) == pytest.approx((2 / 3) / 1.5), "one is missed"
    assert quality_of_things(found, truth, IS_THING, 0.5) == pytest.approx((2 / 3) / 1.5), "a low score"
    stuff_alone = GroundTruth.from_segments(planes, [Segment(n, 1, False) for n in (1, 2, 3)])
    assert math.isnan(quality_of_things([], stuff_alone, IS_THING, 0.5))
    things = things_alone(truth, IS_THING)
    np.testing.assert_array_equal(things.index, np.where(planes[0] == 2, VOID, planes[0]))

    shown = as_panoptic(Result(instance=(instance(2, 0.6, part), instance(0, 0.7, part | false))), (8, 9), 0.5)
    assert [segment.category for segment in shown.segments] == [2, 0]
    np.testing.assert_array_equal(shown.ids, np.where(part | false, 2, 0))
    classes = np.array([[3, 3, 7], [7, 0, 0]], np.uint8)
    of_classes = as_panoptic(Result(semantic=classes), (2, 3), 0.5)
    names = {segment.id: segment.category for segment in of_classes.segments}
    np.testing.assert_array_equal(np.vectorize(names.get)(of_classes.ids), classes)


def test_segments_are_counted_by_their_size() -> None:
    """Squares of 31, 32, 95 and 96 pixels a side: the borders of COCO's sizes. The second is missed, of the others the
    last row is not found."""
    planes, ids = np.full((1, 96, 300), VOID, np.int16), np.zeros((96, 300), np.int32)
    left = number = 0
    for row, side in enumerate((31, 32, 95, 96)):
        planes[0, :side, left : left + side] = row
        if side != 32:
            number += 1
            ids[: side - 1, left : left + side] = number
        left += side
    segments = [Segment(n, 0, False) for n in range(1, 5)]
    panoptic = tuple(PanopticSegment(n, 0, True, 1.0, 1) for n in (1, 2, 3))
    counts = count_segments(PanopticResult(ids, panoptic), GroundTruth.from_segments(planes, segments), 3)
    expected = [[1, 0, 30 / 31], [1, 1, 94 / 95], [1, 0, 95 / 96]]
    np.testing.assert_allclose(counts.by_size, expected)
    np.testing.assert_allclose((counts + counts).by_size, 2 * np.array(expected))
    assert counts.quality == pytest.approx(sum(row[2] for row in expected) / 3.5)
