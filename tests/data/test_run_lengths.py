import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from oneformer_jax.data.datasets.coco_instances import compress
from oneformer_jax.errors import DataError

SIZE = (9, 12)


def decoded(counts: bytes, size: tuple[int, int] = SIZE) -> np.ndarray:
    return coco_mask.decode({"size": list(size), "counts": counts}).astype(bool)


def runs_of(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of 0, 1, 0, ... down the columns, counted one pixel at a time."""
    counts, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


coordinates = st.floats(-2, 14, width=32)
polygons = st.lists(
    st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=7).map(lambda p: [x for xy in p for x in xy]),
    min_size=1,
    max_size=3,
)
masks = st.integers(0, 10_000).map(lambda seed: np.random.default_rng(seed).random(SIZE) < 0.4)


@given(polygons)
def test_polygons_cover_what_pycocotools_says(segmentation: list[list[float]]) -> None:
    coco = COCO()
    coco.imgs = {1: {"height": SIZE[0], "width": SIZE[1]}}
    expected = coco.annToMask({"image_id": 1, "segmentation": segmentation})
    np.testing.assert_array_equal(decoded(compress(segmentation, SIZE)), expected)


@given(masks)
def test_run_lengths_in_both_forms_give_the_mask_back(mask: np.ndarray) -> None:
    counts = runs_of(mask)
    np.testing.assert_array_equal(decoded(compress({"size": list(SIZE), "counts": counts}, SIZE)), mask)
    text = coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"]
    assert compress({"size": list(SIZE), "counts": text.decode()}, SIZE) == text


def test_long_runs_take_several_characters() -> None:
    size = (3000, 2000)
    mask = np.zeros(size, np.uint8)
    mask[10:2900, 5:1990] = 1
    text = coco_mask.encode(np.asfortranarray(mask))["counts"]
    assert compress({"size": list(size), "counts": text.decode()}, size) == text


@given(st.text(st.characters(max_codepoint=130), max_size=12))
def test_any_text_is_run_lengths_or_refused(text: str) -> None:
    try:
        counts = compress({"size": list(SIZE), "counts": text}, SIZE)
    except DataError:
        return
    assert coco_mask.area({"size": list(SIZE), "counts": counts}) <= SIZE[0] * SIZE[1]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "empty or not a list of polygons"),
        (None, "empty or not a list of polygons"),
        ("1 2 3", "empty or not a list of polygons"),
        ([[]], "three or more points"),
        ([[1, 1, 5, 5]], "three or more points"),
        ([[1, 1, 5, 5, 3]], "three or more points"),
        ([[1, 1, 5, 1, 3, 2, 4]], "three or more points"),
        ([["1", "1", "5", "1", "3", "4"]], "three or more points"),
        ([[1, 1, 5, 1, 3, [4]]], "three or more points"),
        ([[1, 1, 5, 1, 3, None]], "three or more points"),
        ([[1, 1, 5, 1, 3, float("nan")]], "outside the image of 9x12"),
        ([[1, 1, 5, 1, 3, 1e300]], "outside the image of 9x12"),
        ([[1, 1, 5, 1, 3, -10]], "outside the image of 9x12"),
        ({"counts": [108]}, r"of size None, the image of \[9, 12\]"),
        ({"size": [12, 9], "counts": [108]}, r"of size \[12, 9\], the image of \[9, 12\]"),
        ({"size": [9, 12], "counts": [100]}, "do not cover the image"),
        ({"size": [9, 12], "counts": [-1, 109]}, "do not cover the image"),
        ({"size": [9, 12], "counts": [1 << 62, 1 << 62]}, "do not cover the image"),
        ({"size": [9, 12], "counts": [1 << 70]}, "string or a list of integers"),
        ({"size": [9, 12], "counts": [54.0, 54.0]}, "string or a list of integers"),
        ({"size": [9, 12]}, "string or a list of integers"),
        ({"size": [9, 12], "counts": ""}, "not valid compressed run lengths"),
        ({"size": [9, 12], "counts": "é"}, "not valid compressed run lengths"),
        ({"size": [9, 12], "counts": "oooo"}, "not valid compressed run lengths"),
        ({"size": [9, 12], "counts": "o" * 9 + "0"}, "not valid compressed run lengths"),
        ({"size": [9, 12], "counts": "00"}, "do not cover the image"),
    ],
)
def test_what_is_no_mask_is_refused(segmentation: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        compress(segmentation, SIZE)
