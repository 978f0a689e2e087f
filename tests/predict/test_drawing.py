import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from tiers import examples

from oneformer_jax.data.datasets.categories import Categories, Category
from oneformer_jax.postprocess.results import Instance, PanopticResult, PanopticSegment
from oneformer_jax.predict.draw import draw_instances, draw_panoptic, draw_semantic

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CATEGORIES = Categories(
    (
        Category(1, "sky", False, (70, 130, 180)),
        Category(5, "a thing with a long name", True, (220, 20, 60)),
        Category(9, "black", True, (0, 0, 0)),
    )
)


def panoptic(ids: np.ndarray, categories: list[int]) -> PanopticResult:
    segments = tuple(
        PanopticSegment(i, category, True, 0.9, int((ids == i).sum())) for i, category in enumerate(categories, start=1)
    )
    return PanopticResult(ids.astype(np.int32), segments)


def test_colours_shades_and_void() -> None:
    ids = np.zeros((400, 600), np.int32)
    ids[:200, :300], ids[:200, 300:], ids[200:, :300] = 1, 2, 3
    image = np.full((400, 600, 3), 100, np.uint8)
    picture = draw_panoptic(image, panoptic(ids, [0, 1, 1]), CATEGORIES)
    assert picture.shape == image.shape
    assert (image == 100).all(), "the input stays as it is"
    sky, first, second, void = picture[20, 20], picture[20, 580], picture[380, 20], picture[380, 580]
    expected = 0.45 * 100 + 0.55 * np.array(CATEGORIES.items[0].color)
    np.testing.assert_allclose(sky, expected, atol=1)
    assert (void == 100).all()
    assert np.abs(first.astype(int) - second).max() > 10, "two things of one class can be told apart"
    assert (picture[100, 298:303] > 230).all(axis=-1).any(), "a white line between segments"
    assert (picture == 255).all(axis=-1).sum() > 50, "white letters"


def test_semantic_draws_the_classes_of_the_panoptic_picture() -> None:
    classes = np.zeros((330, 330), np.int32)
    classes[200:], classes[:, 300:] = 1, -1
    image = np.zeros((330, 330, 3), np.uint8)
    ours = draw_semantic(image, classes, CATEGORIES)
    np.testing.assert_array_equal(ours, draw_panoptic(image, panoptic(classes + 1, [0, 1]), CATEGORIES))


def test_the_best_instance_is_on_top_and_weak_ones_are_missing() -> None:
    def square(category: int, score: float, size: int) -> Instance:
        mask = np.zeros((400, 400), np.uint8)
        mask[:size, :size] = 1
        return Instance(
            category, score, coco_mask.encode(np.asfortranarray(mask)), (0.0, 0.0, float(size), float(size))
        )

    image = np.full((400, 400, 3), 200, np.uint8)
    instances = (square(2, 0.9, 100), square(1, 0.8, 300), square(1, 0.1, 400))
    picture = draw_instances(image, instances, CATEGORIES)
    assert picture[5, 5].max() < 150, "the black class shines through nowhere"
    assert picture[290, 290, 0] > picture[290, 290, 2] + 20, "crimson"
    assert (picture[350, 350] == 200).all()


def test_small_pictures_are_enlarged_by_a_whole_number() -> None:
    ids = np.ones((128, 150), np.int32)
    picture = draw_panoptic(np.zeros((128, 150, 3), np.uint8), panoptic(ids, [0]), CATEGORIES)
    assert picture.shape == (384, 450, 3)


@settings(max_examples=examples(25))
@given(seed=st.integers(0, 999), height=st.integers(1, 60), width=st.integers(1, 60), count=st.integers(0, 6))
def test_any_result_can_be_drawn(seed: int, height: int, width: int, count: int) -> None:
    """Also classes without a name, segments of one pixel, and labels wider than the picture."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, count + 1, size=(height, width))
    image = rng.integers(0, 256, size=(height, width, 3)).astype(np.uint8)
    picture = draw_panoptic(image, panoptic(ids, rng.integers(0, 5, size=count).tolist()), CATEGORIES)
    factor = picture.shape[0] // height
    assert picture.shape == (factor * height, factor * width, 3)
