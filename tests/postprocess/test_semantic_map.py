import numpy as np
import pytest
import torch

from oneformer_jax.data.geometry import Geometry
from oneformer_jax.errors import OneFormerError
from oneformer_jax.postprocess.results import Thresholds, finished_result, semantic_map
from oneformer_jax.postprocess.tiles import sigmoid, softmax
from oneformer_jax.tasks import TASKS


def test_probabilities_are_torch() -> None:
    values = np.array([[-1000, -90, -20, -1e-3, 0], [1e-3, 3, 20, 90, 1000]], np.float32)
    np.testing.assert_allclose(sigmoid(values), torch.sigmoid(torch.from_numpy(values)), atol=1e-7)
    np.testing.assert_allclose(softmax(values), torch.softmax(torch.from_numpy(values), -1), atol=1e-7)


def test_golden(golden) -> None:
    classes = semantic_map(golden.class_logits, golden.mask_logits, golden.geometry)
    top = np.sort(golden.sem_seg, axis=0)
    clear = top[-1] - top[-2] > 1e-4  # the golden's weights are random: many pixels are nearly tied
    assert clear.mean() > 0.6
    np.testing.assert_array_equal(classes[clear], golden.sem_seg.argmax(0)[clear])


def test_class_map_is_as_small_as_the_classes_allow() -> None:
    geometry = Geometry((4, 4), (4, 4), (4, 4))
    for classes, dtype in ((2, np.uint8), (256, np.uint8), (257, np.uint16)):
        class_logits = np.full((1, classes + 1), -9.0, np.float32)
        class_logits[0, classes - 1] = 9
        result = semantic_map(class_logits, np.ones((1, 1, 1), np.float32), geometry)
        assert result.dtype == dtype
        assert (result == classes - 1).all()


def test_logits_that_are_not_finite_are_refused() -> None:
    geometry, logits = Geometry((4, 4), (4, 4), (4, 4)), (np.full((3, 4), np.nan, np.float32), np.ones((3, 1, 1)))
    for task in TASKS:
        with pytest.raises(OneFormerError, match="returns numbers that are not finite"):
            finished_result({task: logits}, geometry, np.ones(3, bool), Thresholds())
