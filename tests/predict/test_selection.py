"""What of a result is kept, against loops over segments, instances and pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.errors import DataError
from oneformer_jax.postprocess.results import Instance, PanopticResult, PanopticSegment, Result
from oneformer_jax.predict.selection import VOID, classes_named, only

NAMES = ["person", "Car", "door, closed", "car wheel", "closed"]
CATEGORIES = Categories.from_json([{"id": 10 + i, "name": name, "isthing": i % 2} for i, name in enumerate(NAMES)])


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        (["person"], {0}),
        (["person,Car"], {0, 1}),
        (["Car", " person , car wheel,"], {0, 1, 3}),
        (["door, closed"], {2}),  # one class, not a list
        (["closed"], {4}),
    ],
)
def test_names_of_classes(lists: list[str], expected: set[int]) -> None:
    assert classes_named(lists, CATEGORIES) == expected


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        (["car"], "no class 'car': did you mean 'Car'?"),
        (["persn,Car"], "no class 'persn': did you mean 'person'?"),
        (["zzz"], "no class 'zzz'\n  -> its classes are person, Car, door, closed, car wheel, closed"),
        (["persn", "weel"], "no class 'persn': did you mean 'person'?; the model has no class 'weel'"),
    ],
)
def test_a_class_that_is_not_there_is_refused_with_the_nearest(lists: list[str], words: str) -> None:
    with pytest.raises(DataError) as caught:
        classes_named(lists, CATEGORIES)
    assert words in str(caught.value)


CLASSES = st.none() | st.frozensets(st.integers(0, 4))


@given(st.lists(st.integers(0, 4), max_size=6), CLASSES, st.integers(0, 10), st.integers(0, 2**16))
def test_panoptic_segments_of_classes_that_reach_a_score(
    categories: list[int], classes: frozenset[int] | None, threshold: int, seed: int
) -> None:
    ids = np.random.default_rng(seed).integers(0, len(categories) + 1, (5, 7)).astype(np.int32)
    segments = tuple(
        PanopticSegment(i, category, bool(category % 2), i / 10, int((ids == i).sum()))
        for i, category in enumerate(categories, start=1)
    )
    found = only(Result(panoptic=PanopticResult(ids, segments)), classes, threshold / 10).panoptic
    assert found is not None
    reaching = [segment for segment in segments if segment.score >= threshold / 10]
    kept = [segment for segment in reaching if classes is None or segment.category in classes]
    assert [segment.id for segment in found.segments] == list(range(1, len(kept) + 1))
    drawn = np.zeros_like(ids)
    for old, new in zip(kept, found.segments, strict=True):
        assert (old.category, old.isthing, old.score, old.area) == (new.category, new.isthing, new.score, new.area)
        drawn[ids == old.id] = new.id
    np.testing.assert_array_equal(found.ids, drawn)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 10)), max_size=6), CLASSES, st.integers(0, 10))
def test_instances_of_classes_that_reach_a_score(
    found: list[tuple[int, int]], classes: frozenset[int] | None, threshold: int
) -> None:
    mask = coco_mask.encode(np.asfortranarray(np.ones((2, 2), np.uint8)))
    instances = tuple(Instance(category, score / 10, mask, (0.0, 0.0, 2.0, 2.0)) for category, score in found)
    kept = []
    for instance in instances:
        if instance.score >= threshold / 10 and (classes is None or instance.category in classes):
            kept.append(instance)
    assert only(Result(instance=instances), classes, threshold / 10).instance == tuple(kept)


@given(st.integers(0, 2**16), CLASSES)
def test_pixels_of_classes(seed: int, classes: frozenset[int] | None) -> None:
    class_map = np.random.default_rng(seed).integers(0, 5, (4, 6)).astype(np.uint8)
    found = only(Result(semantic=class_map), classes).semantic
    assert found is not None
    for y in range(4):
        for x in range(6):
            kept = classes is None or int(class_map[y, x]) in classes
            assert found[y, x] == (class_map[y, x] if kept else VOID)
