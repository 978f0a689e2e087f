"""Post-processing inside a graph against the NumPy rules, in ONNX Runtime."""

import numpy as np
import onnxruntime
import pytest
from jax2onnx import to_onnx
from pycocotools import mask as coco_mask

from converters.onnx.postprocess import finish
from oneformer_jax.data.geometry import Geometry
from oneformer_jax.postprocess.results import Thresholds, instance_segmentation, panoptic_segmentation, semantic_map
from oneformer_jax.predict.metadata import RESULTS

SIZE, QUERIES, CLASSES, BATCH = (32, 48), 6, 4, 3
IS_THING = np.array([True, False, True, False])
THRESHOLDS = Thresholds(object_mask_threshold=0.3, overlap_threshold=0.6, test_topk_per_image=7)
WHOLE = Geometry(SIZE, SIZE, SIZE)


@pytest.fixture(scope="module")
def logits() -> tuple[np.ndarray, np.ndarray]:
    """Confident classes and smooth overlapping masks, so that every rule applies to something."""
    rng = np.random.default_rng(5)
    classes = rng.normal(size=(BATCH, QUERIES, CLASSES + 1)) * 2.5
    classes[0, :, 1] += 3  # stuff that is merged
    y, x = np.mgrid[: SIZE[0] // 4, : SIZE[1] // 4]
    centres = rng.uniform((0, 0), (SIZE[0] / 4, SIZE[1] / 4), (BATCH, QUERIES, 2))
    distance = np.hypot(y - centres[..., 0, None, None], x - centres[..., 1, None, None])
    masks = (rng.uniform(2, 6, (BATCH, QUERIES, 1, 1)) - distance) * 2
    return classes.astype(np.float32), masks.astype(np.float32)


def run(task: str, classes: np.ndarray, masks: np.ndarray) -> list[np.ndarray]:
    model = to_onnx(
        finish(task, IS_THING, SIZE, THRESHOLDS),
        [("B", *classes.shape[1:]), ("B", *masks.shape[1:])],
        opset=17,
        input_names=["pred_logits", "pred_masks"],
        output_names=list(RESULTS[task]),
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"pred_logits": classes, "pred_masks": masks})


def test_semantic(logits: tuple[np.ndarray, np.ndarray]) -> None:
    (found,) = run("semantic", *logits)
    for image, classes, masks in zip(found, *logits, strict=True):
        assert np.mean(image == semantic_map(classes, masks, WHOLE)) > 0.999


def test_instance(logits: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores, inside = run("instance", *logits)
    for row, (classes, masks) in enumerate(zip(*logits, strict=True)):
        expected = instance_segmentation(classes, masks, WHOLE, IS_THING, THRESHOLDS)
        order = [i for i in np.argsort(-scores[row], kind="stable") if scores[row, i] > 0]
        assert [labels[row, i] for i in order] == [instance.category for instance in expected]
        np.testing.assert_allclose(scores[row, order], [instance.score for instance in expected], rtol=1e-4)
        for i, instance in zip(order, expected, strict=True):
            assert np.mean(inside[row, i] == coco_mask.decode(instance.mask)) > 0.999


def test_panoptic(logits: tuple[np.ndarray, np.ndarray]) -> None:
    ids, labels, scores = run("panoptic", *logits)
    for row, (classes, masks) in enumerate(zip(*logits, strict=True)):
        expected = panoptic_segmentation(classes, masks, WHOLE, IS_THING, THRESHOLDS)
        # Both number their segments as they like: the same pixels must have the same class and score.
        tables = [(0, -1, 0.0)], [(0, -1, 0.0)]
        tables[0].extend((i + 1, int(labels[row, i]), float(scores[row, i])) for i in range(QUERIES))
        tables[1].extend((segment.id, segment.category, segment.score) for segment in expected.segments)
        maps = [np.full(SIZE, -2.0), np.full(SIZE, -2.0)], [np.full(SIZE, -2.0), np.full(SIZE, -2.0)]
        for pair, table, numbered in zip(maps, tables, (ids[row], expected.ids), strict=True):
            for number, category, score in table:
                pair[0][numbered == number], pair[1][numbered == number] = category, score
        assert np.mean(maps[0][0] == maps[1][0]) > 0.999
        assert np.mean(np.abs(maps[0][1] - maps[1][1]) < 1e-4) > 0.999
        assert set(np.unique(ids[row])) - {0} == {i + 1 for i in range(QUERIES) if labels[row, i] >= 0}
