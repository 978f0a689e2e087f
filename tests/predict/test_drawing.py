import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from tiers import examples

from oneformer_jax.data.datasets.categories import Categories, Category
from oneformer_jax.postprocess.results import Instance, PanopticResult, PanopticSegment
from oneformer_jax.predict import draw, fonts, labels
from oneformer_jax.predict.draw import draw_instances, draw_panoptic, draw_semantic
from oneformer_jax.predict.write import write_image

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
    np.testing.assert_array_equal(ours, draw_panoptic(image, panoptic(classes + 1, [0, 1]), CATEGORIES, scores=False))


def test_without_names_nothing_is_written_over_the_picture() -> None:
    ids, image = np.ones((330, 330), np.int32), np.zeros((330, 330, 3), np.uint8)
    mask = coco_mask.encode(np.asfortranarray(np.ones((330, 330), np.uint8)))
    whole = Instance(0, 0.9, mask, (0.0, 0.0, 330.0, 330.0))
    named = draw_panoptic(image, panoptic(ids, [0]), CATEGORIES)
    assert white_letters(named) > 0
    even = np.broadcast_to(named[0, 0], named.shape)
    for picture in (
        draw_panoptic(image, panoptic(ids, [0]), CATEGORIES, names=False),
        draw_semantic(image, ids - 1, CATEGORIES, names=False),
    ):
        np.testing.assert_array_equal(picture, even)
    assert white_letters(draw_instances(image, [whole], CATEGORIES)) > 0
    assert len(np.unique(draw_instances(image, [whole], CATEGORIES, names=False).reshape(-1, 3), axis=0)) == 1


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


@pytest.mark.parametrize(
    ("size", "drawn"), [((1, 40_000), (1, 40_000)), ((2, 3000), (2, 3000)), ((70_000, 2), (65_500, 2))]
)
def test_very_long_pictures_are_drawn_at_a_size_that_can_be_written(
    tmp_path: Path, size: tuple[int, int], drawn: tuple[int, int]
) -> None:
    picture = draw_panoptic(np.zeros((*size, 3), np.uint8), panoptic(np.ones(size, np.int32), [0]), CATEGORIES)
    assert picture.shape == (*drawn, 3)
    write_image(tmp_path / "long.jpg", picture)
    with Image.open(tmp_path / "long.jpg") as image:
        assert image.size == drawn[::-1]


def white_letters(picture: np.ndarray) -> int:
    """The height of all that is white, in pixels."""
    rows = np.flatnonzero((picture > 250).all(axis=-1).any(axis=1))
    return int(rows[-1] - rows[0] + 1) if rows.size else 0


def test_labels_grow_with_the_picture() -> None:
    heights = {}
    for edge in (800, 1600, 3200):
        result = panoptic(np.ones((edge, edge), np.int32), [0])
        heights[edge] = white_letters(draw_panoptic(np.zeros((edge, edge, 3), np.uint8), result, CATEGORIES))
    assert heights[800] > 20
    assert heights[1600] == pytest.approx(2 * heights[800], rel=0.1)
    assert heights[3200] == pytest.approx(4 * heights[800], rel=0.1)


def labels_of(result: PanopticResult, categories: Categories, monkeypatch: pytest.MonkeyPatch) -> list[labels.Label]:
    seen: list[labels.Label] = []
    monkeypatch.setattr(draw, "draw_labels", lambda picture, ids, given: seen.extend(given) or picture)
    draw_panoptic(np.zeros((*result.ids.shape, 3), np.uint8), result, categories)
    return seen


def test_panoptic_labels_have_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    (label,) = labels_of(panoptic(np.ones((8, 8), np.int32), [1]), CATEGORIES, monkeypatch)
    assert (label.name, label.score) == ("a thing with a long name", "90%")


def test_segments_without_room_for_a_name_are_named_in_a_legend() -> None:
    """Twenty specks of class 2 on sky: one row with their number and the colour of the class; without them, none."""
    ids = np.ones((640, 640), np.int32)
    plain = draw_panoptic(np.full((640, 640, 3), 90, np.uint8), panoptic(ids, [0]), CATEGORIES)
    for number in range(20):
        ids[40 + 6 * number : 43 + 6 * number, 300:303] = number + 2
    colored = Categories((CATEGORIES.items[0], replace(CATEGORIES.items[1], color=(250, 0, 250))))
    specks = draw_panoptic(np.full((640, 640, 3), 90, np.uint8), panoptic(ids, [0] + [1] * 20), colored)
    swatch = np.argwhere((specks == (250, 0, 250)).all(axis=-1))
    assert len(swatch) > 20
    (top, left), (bottom, right) = swatch.min(axis=0), swatch.max(axis=0)
    assert bottom < 100 or top > 540, "in a corner"
    assert right < 100 or left > 300
    assert (specks[top:bottom, right + 3 : right + 160] > 240).all(axis=-1).any(), "white letters beside it"
    assert not (plain == (250, 0, 250)).all(axis=-1).any()


def test_a_legend_stays_inside_the_picture_and_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(labels, "_write_parts", lambda brush, x, y, parts, size: written.extend(parts))
    many = Categories(tuple(Category(i, f"kind {i}", True, (9, 9, 9)) for i in range(60)))
    ids = np.zeros((320, 320), np.int32)
    for number in range(60):
        ids[5 * number : 5 * number + 3, 0:3] = number + 1
    draw_panoptic(np.zeros((320, 320, 3), np.uint8), panoptic(ids, list(range(60))), many)
    assert written[0] == "kind 0"
    shown = len([part for part in written if part.startswith("kind")])
    assert f"and {60 - shown} more" in written
    assert 3 < shown < 20


@pytest.mark.parametrize("name", ["Straße", "вело", "κύκλος", "مشاة"])
def test_names_are_drawn_with_their_letters(name: str) -> None:
    """The letters differ from each other and from what the font draws for a character that it lacks."""
    font = fonts.font_for(name, 24.0)
    masks = [bytes(font.getmask(letter)) for letter in name]
    assert len(set(masks)) == len(set(name))
    assert bytes(font.getmask("\U0010ffff")) not in masks
    assert fonts.drawable(name, "class 3") == name


def test_without_a_font_a_name_loses_its_accents_or_becomes_a_number(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fonts, "_installed", tuple)
    for cached in (fonts._path_for, fonts._warn):
        cached.cache_clear()
    hiragana, han, emoji = "\u3072\u3068", "\u884c\u4eba", "\U0001f600"
    names = ("B\u00fcro", han, hiragana, emoji)
    given = Categories(tuple(Category(i, name, True, (9, 9, 9)) for i, name in enumerate(names)))
    with caplog.at_level(logging.WARNING):
        drawn = labels_of(panoptic(np.ones((8, 8), np.int32), [0, 1, 2, 3, 1]), given, monkeypatch)
    assert [label.name for label in drawn] == ["Buro", "class 1", "class 2", "class 3", "class 1"]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 4, "each once"
    assert f"'{han}': drawn as 'class 1'. Install one, for example the package fonts-noto-cjk" in told[1]
    assert "fonts-noto-cjk" in told[2]
    assert "fonts-symbola" in told[3]
    for cached in (fonts._path_for, fonts._warn):
        cached.cache_clear()


@pytest.mark.parametrize("name", ["", " ", "\t", "\n"])
def test_a_class_without_a_name_is_drawn_by_its_number(name: str) -> None:
    assert draw._label(0, Categories((Category(1, name, True, (1, 2, 3)),))).name == "class 0"


def test_a_name_is_one_line_of_bounded_length(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Categories((Category(0, "a\nb\t" + "c" * 90, True, (9, 9, 9)),))
    (label,) = labels_of(panoptic(np.ones((8, 8), np.int32), [0]), given, monkeypatch)
    assert label.name == "a b " + "c" * 33 + "..."


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
