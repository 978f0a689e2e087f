"""One predictor whatever computes: an exported model here, a checkpoint in e2e/test_actions.py."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image
from small_graph import CLASSES, SIZE, small_model

from oneformer_jax import load_model
from oneformer_jax.data.geometry import Letterbox
from oneformer_jax.errors import DataError
from oneformer_jax.postprocess.results import Thresholds
from oneformer_jax.predict.predictor import Predictor

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def model(tmp_path: Path) -> Predictor:
    onnx.save(small_model(), tmp_path / "model.onnx")
    return replace(load_model(tmp_path / "model.onnx"), thresholds=Thresholds(object_mask_threshold=0.0))


def test_a_result_has_a_field_for_each_task_that_was_asked_for(model: Predictor) -> None:
    assert (model.num_classes, model.image_size, model.policy) == (CLASSES, (SIZE, SIZE), Letterbox((SIZE, SIZE)))
    result = model.predict(PICTURE)
    assert result.semantic is not None
    assert result.instance
    assert result.panoptic is not None
    assert result.semantic.shape == result.panoptic.ids.shape == PICTURE.shape[:2]
    assert all(instance.mask["size"] == [40, 50] for instance in result.instance)
    assert set(np.unique(result.panoptic.ids)) - {0} == {segment.id for segment in result.panoptic.segments}
    alone = model.predict(PICTURE, "panoptic")
    assert alone.semantic is alone.instance is None
    assert alone.panoptic is not None
    np.testing.assert_array_equal(alone.panoptic.ids, result.panoptic.ids)
    with pytest.raises(ValueError, match="task must be one of"):
        model.predict(PICTURE, "depth")


def test_thresholds_of_the_predictor_count(model: Predictor) -> None:
    assert model.predict(PICTURE, "panoptic").panoptic.segments
    strict = replace(model, thresholds=Thresholds(object_mask_threshold=1.0, test_topk_per_image=0))
    result = strict.predict(PICTURE, "panoptic", "instance")
    assert (result.panoptic.segments, result.instance) == ((), ())


def test_a_picture_has_one_result_in_whatever_form_it_comes(model: Predictor, tmp_path: Path) -> None:
    expected = model.predict(PICTURE, "semantic").semantic
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    wide = PICTURE.astype(np.uint16) * 257
    for form in (wide, PICTURE / 255, tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(PICTURE)):
        np.testing.assert_array_equal(model.predict(form, "semantic").semantic, expected)
    geometry = model.policy(PICTURE.shape[:2])
    (result,) = model.predict_batch([wide], [geometry], ["semantic"])
    np.testing.assert_array_equal(result.semantic, expected)


@pytest.mark.parametrize("picture", [PICTURE / 100, PICTURE[None], PICTURE[:0], PICTURE.astype(np.int32)])
def test_what_is_no_picture_is_refused_before_anything_runs(model: Predictor, picture: np.ndarray) -> None:
    with pytest.raises(DataError, match="a picture must"):
        model.predict(picture)
    with pytest.raises(DataError, match="a picture must"):
        model.predict_batch([picture], [model.policy((40, 50))], ["semantic"])


def test_several_pictures_of_one_padded_size_are_one_batch(model: Predictor) -> None:
    pictures = [PICTURE, PICTURE[:, ::-1].copy(), PICTURE[:20]]
    geometries = [model.policy(picture.shape[:2]) for picture in pictures]
    assert model.predict_batch([], [], ["semantic"]) == []
    together = model.predict_batch(pictures, geometries, ["semantic"])
    for picture, result in zip(pictures, together, strict=True):
        np.testing.assert_array_equal(result.semantic, model.predict(picture, "semantic").semantic)


def test_a_model_is_shown_in_one_line(model: Predictor) -> None:
    assert repr(model) == f"Predictor({model.path}: {CLASSES} classes, {model.provider}, images of {SIZE}x{SIZE})"
