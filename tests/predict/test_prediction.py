"""Segments, drawings and files of a prediction, against loops over pixels."""

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from small_graph import small_model

from oneformer_jax import load_model
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.errors import OneFormerError
from oneformer_jax.postprocess.results import Instance, PanopticResult, PanopticSegment, Thresholds
from oneformer_jax.postprocess.segments import Segment
from oneformer_jax.predict.draw import draw_instances, draw_panoptic, draw_semantic
from oneformer_jax.predict.prediction import Prediction
from oneformer_jax.predict.predictor import Predictor
from oneformer_jax.tasks import TASKS

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
CATEGORIES = Categories.from_json([{"id": 9, "name": "sky", "isthing": 0}, {"id": 3, "name": "cat", "isthing": 1}])


def prediction_of(ids: np.ndarray) -> Prediction:
    """The same segments as a class map, as instances and panoptic; class 2 has no name."""
    numbers = [number for number in np.unique(ids).tolist() if number]
    masks = [coco_mask.encode(np.asfortranarray(ids == number).astype(np.uint8)) for number in numbers]
    panoptic = tuple(
        PanopticSegment(number, number % 3, number % 3 == 1, number / 10, int((ids == number).sum()))
        for number in numbers
    )
    instances = tuple(
        Instance(number % 3, number / 10, mask, tuple(coco_mask.toBbox(mask).tolist()))
        for number, mask in zip(numbers, masks, strict=True)
    )
    return Prediction(
        (ids % 3).astype(np.uint8),
        instances,
        PanopticResult(ids, panoptic),
        picture=np.full((*ids.shape, 3), 90, np.uint8),
        categories=CATEGORIES,
        min_score=0.2,
    )


def check(segment: Segment, pixels: list[tuple[int, int]]) -> None:
    """`pixels` are the (y, x) that belong to it."""
    assert segment.area == len(pixels)
    assert list(zip(*(axis.tolist() for axis in np.nonzero(segment.mask)), strict=True)) == pixels
    rows, columns = [y for y, _ in pixels], [x for _, x in pixels]
    assert segment.box == (min(columns), min(rows), max(columns) + 1, max(rows) + 1)


@given(st.integers(0, 2**16), st.integers(1, 6))
def test_segments_of_every_task_are_the_pixels_that_they_say(seed: int, most: int) -> None:
    ids = np.random.default_rng(seed).integers(0, most + 1, (4, 6)).astype(np.int32)
    names = ["sky", "cat", "class 2"]
    every = [(y, x) for y in range(4) for x in range(6)]
    prediction = prediction_of(ids)
    found = pickle.loads(pickle.dumps(prediction))
    assert found.segments == found.segments_of("panoptic")
    for segments in (found.segments, found.segments_of("instance")):
        numbers = sorted({int(ids[place]) for place in every} - {0})
        assert len(segments) == len(numbers)
        for number, segment in zip(numbers, segments, strict=True):
            assert (segment.name, segment.category, segment.score) == (names[number % 3], number % 3, number / 10)
            check(segment, [place for place in every if ids[place] == number])
    for segment in found.segments_of("semantic"):
        assert (segment.name, segment.score) == (names[segment.category], None)
        check(segment, [place for place in every if ids[place] % 3 == segment.category])
    assert {segment.category for segment in found.segments_of("semantic")} == {int(ids[place]) % 3 for place in every}


def test_drawings_and_files(tmp_path: Path) -> None:
    ids = np.zeros((330, 340), np.int32)
    ids[:200, :100], ids[200:] = 1, 2
    whole = prediction_of(ids)
    picture = whole.picture
    assert whole.panoptic is not None
    assert whole.semantic is not None
    expected = {
        None: draw_panoptic(picture, whole.panoptic, CATEGORIES),
        "panoptic": draw_panoptic(picture, whole.panoptic, CATEGORIES),
        "instance": draw_instances(picture, whole.instance or (), CATEGORIES, 0.2),
        "semantic": draw_semantic(picture, whole.semantic, CATEGORIES),
    }
    for task, drawn in expected.items():
        np.testing.assert_array_equal(whole.draw(task), drawn)
        whole.save(tmp_path / f"{task}.png", task)
        np.testing.assert_array_equal(cv2.imread(tmp_path / f"{task}.png")[..., ::-1], drawn)
    plain = draw_panoptic(picture, whole.panoptic, CATEGORIES, names=False)
    np.testing.assert_array_equal(whole.draw(names=False), plain)
    with pytest.raises(OneFormerError, match=r"found \.tif, expected a picture"):
        whole.save(str(tmp_path / "x.tif"))


def test_the_first_task_is_shown_and_one_that_is_not_there_refused() -> None:
    whole = prediction_of(np.ones((330, 330), np.int32))
    alone = replace(whole, panoptic=None, instance=None)
    assert repr(whole) == "Prediction(330x330, panoptic, instance, semantic: cat)"
    assert repr(alone) == "Prediction(330x330, semantic: cat)"
    assert alone.segments == alone.segments_of("semantic")
    np.testing.assert_array_equal(alone.draw(), alone.draw("semantic"))
    for wrong in (alone.segments_of, alone.draw):
        with pytest.raises(ValueError, match="no panoptic result"):
            wrong("panoptic")


def test_only_some_classes_and_scores() -> None:
    ids = np.arange(1, 7, dtype=np.int32).repeat(10).reshape(6, 10)  # 1, 4: cat; 2, 5: no name; 3, 6: sky
    whole = prediction_of(ids)
    assert repr(whole) == "Prediction(10x6, panoptic, instance, semantic: 2 cat, 2 class 2, 2 sky)"
    cats = whole.only("cat")
    assert [(segment.name, segment.score) for segment in cats.segments] == [("cat", 0.1), ("cat", 0.4)]
    assert [segment.score for segment in cats.segments_of("instance")] == [0.1, 0.4]
    assert {segment.name for segment in cats.segments_of("semantic")} == {"cat"}
    assert cats.min_score == whole.min_score
    best = whole.only(["cat", "sky"], threshold=0.4)
    assert [(segment.name, segment.score) for segment in best.segments] == [("sky", 0.3 * 2), ("cat", 0.4)][::-1]
    assert best.min_score == 0.4
    assert [found.mask.sum() for found in best.segments] == [10, 10]
    assert repr(whole.only(threshold=1.0)) == "Prediction(10x6, panoptic, instance, semantic: nothing)"
    np.testing.assert_array_equal(best.picture, whole.picture)
    with pytest.raises(OneFormerError, match="did you mean 'cat'"):
        whole.only("cart")


def test_a_notebook_shows_the_drawing() -> None:
    ids = np.zeros((330, 1500), np.int32)
    ids[:, :700] = 1
    shown = cv2.imdecode(np.frombuffer(prediction_of(ids)._repr_png_(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert shown.shape == (225, 1024, 3)
    small = prediction_of(ids[:, :400])
    shown = cv2.imdecode(np.frombuffer(small._repr_png_(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(shown, small.draw())


@pytest.fixture(params=[-1, 2], ids=["any batch", "batches of 2"])
def model(tmp_path: Path, request: pytest.FixtureRequest) -> Predictor:
    onnx.save(small_model(request.param), tmp_path / "model.onnx")
    return replace(load_model(tmp_path / "model.onnx"), thresholds=Thresholds(object_mask_threshold=0.0))


def test_a_batch_has_a_picture(model: Predictor) -> None:
    picture = np.zeros((80, 80, 3), np.uint8)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"1 or more, not {wrong}"):
            model.predict(picture, "semantic", batch_size=wrong)
        with pytest.raises(ValueError, match=f"1 or more, not {wrong}"):
            model.predict(picture, "semantic", batch_size=wrong, tile=32)


def test_a_list_of_pictures_gives_the_predictions_of_each(
    model: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    pictures: list[Any] = [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((40, 50), (20, 60), (33, 32))]
    cv2.imwrite(tmp_path / "a.png", pictures[1][..., ::-1])
    one_by_one = [model.predict(picture) for picture in pictures]
    sizes: list[int] = []
    predict_batch = Predictor.predict_batch

    def counted(self: Predictor, images: Sequence[Any], *arguments: Any) -> Any:
        sizes.append(len(images))
        return predict_batch(self, images, *arguments)

    monkeypatch.setattr(Predictor, "predict_batch", counted)
    together = model.predict([pictures[0], tmp_path / "a.png", pictures[2]], batch_size=2)
    assert sizes == [2, 2], "the last one is filled"
    for expected, found, picture in zip(one_by_one, together, pictures, strict=True):
        np.testing.assert_array_equal(found.picture, picture)
        assert found.categories == model.categories
        assert found.min_score == 0.0
        for task in TASKS:
            assert found.segments_of(task) == expected.segments_of(task)
    assert model.predict([]) == []

    sizes.clear()
    taken: list[int] = []

    def made() -> Iterator[Any]:
        for number in range(5):
            taken.append(number)
            yield Image.fromarray(pictures[number % 3])

    lazily = model(made(), batch_size=2)
    assert taken == [], "nothing before it is asked for"
    first = next(lazily)
    assert taken == [0, 1]
    assert first.segments_of("instance") == one_by_one[0].segments_of("instance")
    rest = [found.picture for found in lazily]
    for number, picture in enumerate(rest, start=1):
        np.testing.assert_array_equal(picture, pictures[number % 3])
    assert sizes == [2, 2, 2]
    with pytest.raises(ValueError, match="task must be one of"):
        model(made(), "depth")
