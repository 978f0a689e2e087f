import json

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from oneformer_jax.data.geometry import Geometry, short_edge
from oneformer_jax.postprocess.results import Thresholds, instance_segmentation

# pycocotools 2.0 decodes through NumPy 1's array interface.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_golden(golden) -> None:
    meta = json.loads(golden.meta)
    instances = instance_segmentation(
        golden.class_logits,
        golden.mask_logits,
        golden.geometry,
        golden.is_thing,
        Thresholds(test_topk_per_image=meta["topk"]),
    )
    order = np.argsort(-golden.instances_scores)
    assert len(instances) == len(order)
    for instance, expected in zip(instances, order, strict=True):
        assert instance.category == golden.instances_classes[expected]
        assert instance.score == pytest.approx(golden.instances_scores[expected], abs=1e-5)
        np.testing.assert_array_equal(coco_mask.decode(instance.mask), golden.instances_masks[expected])


def test_is_the_published_rule(full_size_logits) -> None:
    """More queries than one chunk, an image of several tiles, a query chosen for two classes."""
    rng = np.random.default_rng(5)
    geometry = short_edge((90, 150), 64, 128)
    queries, classes, top = 40, 5, 60
    is_thing = np.array([True, False, True, True, False])
    class_logits = rng.normal(scale=2, size=(queries, classes + 1)).astype(np.float32)
    shape = (queries, geometry.padded[0] // 4, geometry.padded[1] // 4)
    mask_logits = rng.normal(loc=-6, scale=5, size=shape).astype(np.float32)
    mask_logits[:3] = -9  # empty masks are left out

    probabilities = torch.softmax(torch.from_numpy(class_logits), -1)[:, :-1]
    scores, index = probabilities.flatten().topk(top)
    masks = torch.from_numpy(full_size_logits(mask_logits, geometry))
    expected = []
    for score, query, label in zip(scores, index // classes, index % classes, strict=True):
        inside = masks[query] > 0
        if is_thing[label] and inside.any():
            quality = masks[query].sigmoid()[inside].mean()
            expected.append((float(score * quality), int(label), inside.numpy()))
    expected.sort(key=lambda entry: -entry[0])

    instances = instance_segmentation(
        class_logits, mask_logits, geometry, is_thing, Thresholds(test_topk_per_image=top)
    )
    assert [instance.category for instance in instances] == [label for _, label, _ in expected]
    np.testing.assert_allclose([i.score for i in instances], [score for score, _, _ in expected], atol=1e-5)
    for instance, (_, _, inside) in zip(instances, expected, strict=True):
        assert instance.mask["size"] == list(geometry.original)
        assert (coco_mask.decode(instance.mask) != inside).sum() <= 1
        rows, columns = np.nonzero(coco_mask.decode(instance.mask))
        corner = columns.min(), rows.min()
        assert instance.box == (*corner, columns.max() + 1 - corner[0], rows.max() + 1 - corner[1])


@pytest.mark.parametrize("is_thing", [np.array([False, False]), np.array([True, True])])
def test_no_things_or_empty_masks_give_no_instances(is_thing: np.ndarray) -> None:
    geometry = Geometry((8, 8), (8, 8), (8, 8))
    logits = np.zeros((3, 3), np.float32)
    assert instance_segmentation(logits, np.full((3, 2, 2), -1, np.float32), geometry, is_thing, Thresholds()) == ()
