from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneformer_jax.data.augmentation import PAD_COLOR, AugmentationSettings, augment, flip, jitter_color, scaled_size
from oneformer_jax.data.datasets.dataset import VOID

GEOMETRY_ONLY = {"color_prob": 0.0, "blur_prob": 0.0}


def picture(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random rectangles on a grid of 20 pixels, some of them void, and an image with colour 40 + 20 * row. A second
    plane holds the same mirrored."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((height, width), np.int16)
    for i in range(1, 6):
        y, x = 20 * rng.integers(0, (height // 20 + 1, width // 20 + 1))
        rows[y : y + 40, x : x + 60] = VOID if i == 3 else i
    planes = np.stack([rows, rows[:, ::-1]])
    return np.repeat((40 + 20 * rows)[..., None], 3, axis=-1).astype(np.uint8), planes


scales = st.floats(0.1, 2.0)
probabilities = st.sampled_from([0.0, 0.5, 1.0])
any_settings = st.fixed_dictionaries(  # built in the test: what checks types draws numbers of its own
    {
        "crop": st.tuples(st.integers(8, 96), st.integers(8, 96)),
        "min_scale": st.floats(0.1, 1.0),
        "max_scale": st.floats(1.0, 2.0),
        **{f"{change}_prob": probabilities for change in ("flip", "color", "rotation", "blur", "erasing")},
    }
)


@pytest.mark.tao(24)
@given(any_settings, st.integers(2, 120), st.integers(2, 120), st.integers(0, 1000))
def test_shapes_types_and_no_invented_rows(options: dict[str, Any], height: int, width: int, seed: int) -> None:
    chosen = AugmentationSettings(**options)
    image, rows = picture(height, width, seed)
    before = image.copy(), rows.copy()
    new_image, new_rows = augment(image, rows, chosen, np.random.default_rng(seed))
    assert new_image.shape == (*chosen.crop, 3)
    assert new_rows.shape == (2, *chosen.crop)
    assert (new_image.dtype, new_rows.dtype) == (np.uint8, np.int16)
    assert set(np.unique(new_rows)) <= set(np.unique(rows)) | {VOID}
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(rows, before[1])
    again = augment(image, rows, chosen, np.random.default_rng(seed))
    np.testing.assert_array_equal(again[0], new_image)
    np.testing.assert_array_equal(again[1], new_rows)


@given(scales, st.booleans(), st.booleans(), st.integers(0, 1000))
def test_image_and_rows_move_together(scale: float, turned: bool, mirrored: bool, seed: int) -> None:
    image, rows = picture(100, 140, seed)
    chosen = AugmentationSettings(
        crop=(72, 80),
        min_scale=scale,
        max_scale=scale,
        flip_prob=float(mirrored),
        rotation_prob=float(turned),
        erasing_prob=0.0,
        **GEOMETRY_ONLY,
    )
    new_image, new_rows = augment(image, rows, chosen, np.random.default_rng(seed))
    new_rows = new_rows[0]
    # Where a row fills a neighbourhood, interpolation has nothing to mix: the colour is that of the row.
    # Rotation mixes and rounds within a pixel and a half of the original, resizing within one more of the copy.
    reach = np.ones((2 * round(1.5 * scale + 1.5) + 1,) * 2, np.uint8)
    inside = (cv2.dilate(new_rows, reach) == cv2.erode(new_rows, reach)) & (new_rows != VOID)
    inside[:5] = inside[-5:] = inside[:, :5] = inside[:, -5:] = False  # what lies beyond the crop is unknown
    if scale >= 0.5:  # smaller copies may have no inside
        np.testing.assert_allclose(new_image[inside, 0], 40 + 20 * new_rows[inside], atol=1)


def test_nothing_happens_at_scale_one_without_chance() -> None:
    image, rows = picture(64, 64, 1)
    chosen = AugmentationSettings(crop=(64, 64), min_scale=1.0, max_scale=1.0, flip_prob=0.0, color_prob=0.0)
    new_image, new_rows = augment(image, rows, chosen, np.random.default_rng(0))
    np.testing.assert_array_equal(new_image, image)
    np.testing.assert_array_equal(new_rows, rows)


def test_small_images_are_padded_at_the_bottom_and_right() -> None:
    image, rows = picture(50, 100, 2)
    chosen = AugmentationSettings(crop=(64, 96), min_scale=0.5, max_scale=0.5, flip_prob=0.0, color_prob=0.0)
    new_image, new_rows = augment(image, rows, chosen, np.random.default_rng(0))
    assert (new_image[32:] == PAD_COLOR).all()
    assert (new_image[:, 64:] == PAD_COLOR).all()
    assert (new_rows[:, 32:] == VOID).all()
    assert (new_rows[:, :, 64:] == VOID).all()
    np.testing.assert_array_equal(np.unique(new_rows[:, :32, :64]), np.unique(rows))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 100))
def test_flip_is_its_own_inverse(height: int, width: int, seed: int) -> None:
    image, rows = picture(height, width, seed)
    mirrored = flip(image, rows)
    np.testing.assert_array_equal(mirrored[1], rows[:, :, ::-1])
    back = flip(*mirrored)
    np.testing.assert_array_equal(back[0], image)
    np.testing.assert_array_equal(back[1], rows)


@pytest.mark.parametrize(
    ("original", "short", "expected"),
    [((480, 640), 240, (240, 320)), ((640, 480), 960, (1280, 960)), ((100, 400), 100, (50, 200))],
)
def test_scaled_size(original: tuple[int, int], short: int, expected: tuple[int, int]) -> None:
    assert scaled_size(original, short) == expected


def test_crops_that_one_segment_dominates_are_drawn_again() -> None:
    # Left four fifths belong to one segment: about half of the free crops show nothing else.
    rows = np.zeros((1, 100, 100), np.int16)
    rows[:, :, 80:] = 1
    image = np.zeros((100, 100, 3), np.uint8)

    def dominated(limit: float) -> int:
        chosen = AugmentationSettings(crop=(40, 40), min_scale=2.5, max_scale=2.5, color_prob=0.0, crop_max_area=limit)
        crops = [augment(image, rows, chosen, np.random.default_rng(seed))[1] for seed in range(200)]
        return sum(max((crop == 0).mean(), (crop == 1).mean()) >= 0.6 for crop in crops)

    free, constrained = dominated(1.1), dominated(0.6)
    assert free > 150
    # A crop is fine at 4 of 61 positions; ten tries miss them with probability (57/61)^10 = 0.51.
    assert abs(constrained / 200 - 0.51) < 0.1


def test_void_does_not_count_in_the_crop() -> None:
    rows = np.full((1, 80, 80), VOID, np.int16)
    rows[:, ::4, ::4], rows[:, 1::4, 1::4] = 0, 1
    chosen = AugmentationSettings(crop=(40, 40), min_scale=2.0, max_scale=2.0)
    rng = np.random.default_rng(0)
    first = np.random.default_rng(0)
    augment(np.zeros((80, 80, 3), np.uint8), rows, chosen, rng)
    # Rotation and blur coins, scale, then one try of two numbers, flip, and the seven or so draws of the colours.
    first.random(), first.random(), first.uniform(), first.integers(41), first.integers(41), first.random()
    jitter_color(np.zeros((8, 8, 3), np.uint8), 0.5, first)
    first.random()
    assert rng.random() == first.random()


@given(st.integers(0, 300))
def test_colours_of_a_grey_picture_stay_grey_and_ordered(seed: int) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=-1)
    changed = jitter_color(ramp, 0.5, np.random.default_rng(seed)).astype(int)
    assert np.ptp(changed, axis=-1).max() <= 1
    assert (np.diff(changed[0, :, 0]) >= 0).all()


def test_colours_without_chance_are_unchanged_and_otherwise_change() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(jitter_color(image, 0.0, np.random.default_rng(0)), image)
    results = {jitter_color(image, 0.5, np.random.default_rng(seed)).tobytes() for seed in range(40)}
    assert 25 < len(results) <= 40  # one in sixteen keeps the picture


@pytest.mark.tao(24)
def test_erased_pixels_are_void_and_of_one_colour() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    rows = np.zeros((1, 60, 60), np.int16)
    chosen = AugmentationSettings(
        crop=(60, 60), min_scale=1.0, max_scale=1.0, flip_prob=0.0, color_prob=0.0, erasing_prob=1.0
    )
    new_image, new_rows = augment(image, rows, chosen, np.random.default_rng(0))
    erased = new_rows[0] == VOID
    assert 0.01 < erased.mean() < 0.22
    assert len(np.unique(new_image[erased], axis=0)) == 1
    np.testing.assert_array_equal(new_image[~erased], image[~erased])


def test_short_sizes_take_the_place_of_the_scale_jitter() -> None:
    """A crop larger than any size shows the whole image: its edges tell which size was drawn."""
    image, planes = np.full((40, 80, 3), 7, np.uint8), np.zeros((1, 40, 80), np.int16)
    settings = AugmentationSettings(
        crop=(96, 96), short_sizes=(20, 32), longest=60, flip_prob=0.0, color_prob=0.0, crop_max_area=1.0
    )
    sizes = set()
    for seed in range(20):
        _, mask = augment(image, planes, settings, np.random.default_rng(seed))
        sizes.add((int((mask[0] == 0).any(1).sum()), int((mask[0] == 0).any(0).sum())))
    assert sizes == {(20, 40), (30, 60)}


@pytest.mark.parametrize("edge", [32766, 32767, 40_000])
@pytest.mark.parametrize("tall", [False, True])
def test_pictures_longer_than_opencv_turns_are_turned_as_well(edge: int, tall: bool) -> None:
    """Left half dark and segment 0, right half bright and segment 1; what is turned stays together."""
    image, planes = np.full((4, edge, 3), 10, np.uint8), np.zeros((1, 4, edge), np.int16)
    image[:, edge // 2 :], planes[:, :, edge // 2 :] = 240, 1
    if tall:
        image, planes = (np.ascontiguousarray(x) for x in (image.transpose(1, 0, 2), planes.transpose(0, 2, 1)))
    chosen = AugmentationSettings(
        crop=(32, 32), min_scale=1.0, max_scale=1.0, flip_prob=0.0, color_prob=0.0, rotation_prob=1.0, crop_max_area=1.0
    )
    turned, rows = augment(image, planes, replace(chosen, rotation_degrees=0.001), np.random.default_rng(0))
    assert np.median(turned[rows[0] == 0]) == 10
    assert np.median(turned[rows[0] == 1]) == 240
