import numpy as np
import torch

from oneformer_jax.data.geometry import Geometry, short_edge
from oneformer_jax.postprocess.results import semantic_map, semantic_score_tiles
from oneformer_jax.postprocess.tiles import sigmoid, softmax


def semantic_scores(class_logits: np.ndarray, mask_logits: np.ndarray, geometry: Geometry) -> np.ndarray:
    result = np.empty((class_logits.shape[1] - 1, *geometry.original), np.float32)
    for rows, columns, scores in semantic_score_tiles(class_logits, mask_logits, geometry):
        result[:, rows, columns] = np.moveaxis(scores, -1, 0)
    return result


def test_probabilities_are_torch() -> None:
    values = np.array([[-1000, -90, -20, -1e-3, 0], [1e-3, 3, 20, 90, 1000]], np.float32)
    np.testing.assert_allclose(sigmoid(values), torch.sigmoid(torch.from_numpy(values)), atol=1e-7)
    np.testing.assert_allclose(softmax(values), torch.softmax(torch.from_numpy(values), -1), atol=1e-7)


def test_golden_scores(golden) -> None:
    scores = semantic_scores(golden.class_logits, golden.mask_logits, golden.geometry)
    np.testing.assert_allclose(scores, golden.sem_seg, atol=1e-4)
    classes = semantic_map(golden.class_logits, golden.mask_logits, golden.geometry)
    top = np.sort(golden.sem_seg, axis=0)
    clear = top[-1] - top[-2] > 1e-4  # the golden's weights are random: many pixels are nearly tied
    assert clear.mean() > 0.6
    np.testing.assert_array_equal(classes[clear], golden.sem_seg.argmax(0)[clear])


def test_agrees_with_torch_at_a_size_of_several_tiles(full_size_logits) -> None:
    rng = np.random.default_rng(3)
    geometry = short_edge((150, 131), 96, 160)
    class_logits = rng.normal(scale=3, size=(12, 6)).astype(np.float32)
    mask_logits = rng.normal(scale=5, size=(12, geometry.padded[0] // 4, geometry.padded[1] // 4)).astype(np.float32)
    probabilities = torch.softmax(torch.from_numpy(class_logits), -1)[:, :-1]
    masks = torch.from_numpy(full_size_logits(mask_logits, geometry)).sigmoid()
    expected = torch.einsum("qk,qhw->khw", probabilities, masks).numpy()
    np.testing.assert_allclose(semantic_scores(class_logits, mask_logits, geometry), expected, atol=1e-4)


def test_class_map_is_as_small_as_the_classes_allow() -> None:
    geometry = Geometry((4, 4), (4, 4), (4, 4))
    for classes, dtype in ((2, np.uint8), (256, np.uint8), (257, np.uint16)):
        class_logits = np.full((1, classes + 1), -9.0, np.float32)
        class_logits[0, classes - 1] = 9
        result = semantic_map(class_logits, np.ones((1, 1, 1), np.float32), geometry)
        assert result.dtype == dtype
        assert (result == classes - 1).all()
