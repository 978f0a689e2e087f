"""Predictions in the formats of other tools, read by these tools, bit for bit."""

import base64
import contextlib
import io
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.importers.layouts.labelme import open_labelme
from oneformer_jax.data.importers.reader import Options
from oneformer_jax.errors import OneFormerError
from oneformer_jax.postprocess.results import Instance, PanopticResult, PanopticSegment
from oneformer_jax.predict.prediction import Prediction
from oneformer_jax.tasks import RICHEST_FIRST

CATEGORIES = Categories.from_json([{"id": 9, "name": "sky", "isthing": 0}, {"id": 3, "name": "cat", "isthing": 1}])


def prediction_of(ids: np.ndarray) -> Prediction:
    """Segments by their numbers, class = number % 3, of which the last has no name; the same as overlapping instances,
    which hold all higher numbers, too."""
    numbers = [number for number in np.unique(ids).tolist() if number]
    panoptic = tuple(PanopticSegment(n, n % 3, n % 3 == 1, n / 10, int((ids == n).sum())) for n in numbers)
    masks = {n: coco_mask.encode(np.asfortranarray(ids >= n).astype(np.uint8)) for n in numbers}
    instances = tuple(Instance(n % 3, n / 10, mask, tuple(coco_mask.toBbox(mask))) for n, mask in masks.items())
    picture = np.full((*ids.shape, 3), 90, np.uint8)
    classes = (ids % 3).astype(np.uint8)
    return Prediction(classes, instances, PanopticResult(ids, panoptic), picture=picture, categories=CATEGORIES)


@given(st.integers(0, 2**16), st.integers(1, 6))
def test_pycocotools_reads_the_same_masks(seed: int, most: int) -> None:
    ids = np.random.default_rng(seed).integers(0, most + 1, (5, 7)).astype(np.int32)
    prediction = prediction_of(ids)
    for task in RICHEST_FIRST:
        content = json.loads(json.dumps(prediction.to_coco("a.png", task, image_id=7)))
        read = COCO()
        read.dataset = content
        with contextlib.redirect_stdout(io.StringIO()):
            read.createIndex()
        assert content["images"] == [{"id": 7, "file_name": "a.png", "height": 5, "width": 7}]
        segments = prediction.segments_of(task)
        assert len(content["annotations"]) == len(segments)
        for entry, segment in zip(content["annotations"], segments, strict=True):
            found = read.annToMask(entry)
            np.testing.assert_array_equal(found > 0, segment.mask)
            encoded = coco_mask.encode(np.asfortranarray(segment.mask.astype(np.uint8)))
            assert entry["segmentation"]["counts"].encode() == encoded["counts"]
            assert entry["area"] == coco_mask.area(encoded)
            assert entry["bbox"] == coco_mask.toBbox(encoded).tolist()
            assert entry["category_id"] == {0: 9, 1: 3, 2: 10}[segment.category], "one without a name counts on"
            assert entry.get("score") == segment.score
        if task != "semantic" and segments:
            with contextlib.redirect_stdout(io.StringIO()):
                assert len(read.loadRes(content["annotations"]).anns) == len(segments)


def test_labelme_gets_polygons_and_masks_where_there_are_holes(tmp_path: Path) -> None:
    ids = np.zeros((40, 60), np.int32)
    ids[5:20, 5:20] = 1  # with a hole
    ids[8:12, 8:12] = 0
    cv2.circle(ids, (40, 20), 12, 4, -1)
    ids[30:35, 2:6] = ids[30:35, 10:14] = 7  # two parts
    prediction = prediction_of(ids).only("cat")
    content = prediction.to_labelme("a.png", tolerance=0.0)
    assert [shape["shape_type"] for shape in content["shapes"]] == ["mask", "polygon", "polygon", "polygon"]
    assert [shape["group_id"] for shape in content["shapes"]] == [None, None, 3, 3]
    assert [shape["description"] for shape in content["shapes"]] == ["0.100", "0.400", "0.700", "0.700"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    cv2.imwrite(tmp_path / "a.png", prediction.picture)
    reader = open_labelme(tmp_path, Options(), lambda _: None)
    shapes = reader.read(reader.items[0]).shapes
    assert reader.categories.names == ("cat",)
    for shape, segment in zip(shapes, prediction.segments, strict=True):
        runs = shape.segmentation
        runs = runs if isinstance(runs, dict) else coco_mask.merge(coco_mask.frPyObjects(runs, 40, 60))
        np.testing.assert_array_equal(coco_mask.decode(runs) > 0, segment.mask)
    inner = cv2.imdecode(np.frombuffer(base64.b64decode(content["shapes"][0]["mask"]), np.uint8), -1)
    np.testing.assert_array_equal(inner > 0, ids[5:20, 5:20] == 1)

    circle = prediction.to_labelme("a.png")["shapes"][1]["points"]
    assert len(circle) < len(content["shapes"][1]["points"]) / 2, "a pixel more or less, for fewer corners"
    drawn = coco_mask.decode(coco_mask.frPyObjects([np.ravel(circle).tolist()], 40, 60))[..., 0] > 0
    assert (drawn & (ids == 4)).sum() / (drawn | (ids == 4)).sum() > 0.9


@dataclass
class Detections:
    """What supervision's class takes."""

    xyxy: Any
    mask: Any = None
    confidence: Any = None
    class_id: Any = None
    data: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def empty(cls) -> "Detections":
        return cls(np.empty((0, 4), np.float32), confidence=np.array([]), class_id=np.array([]))

    def __len__(self) -> int:
        return len(self.xyxy)


def test_supervision_gets_boxes_masks_scores_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own class where it is installed, else one like it."""
    try:
        import supervision
    except ModuleNotFoundError:
        supervision = ModuleType("supervision")
        supervision.Detections = Detections  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "supervision", supervision)
    ids = np.zeros((6, 8), np.int32)
    ids[1:3, 2:5], ids[4:, 7:] = 1, 3
    found = prediction_of(ids).to_supervision()
    assert isinstance(found, supervision.Detections)
    np.testing.assert_array_equal(found.xyxy, [[2, 1, 5, 3], [7, 4, 8, 6]])
    np.testing.assert_array_equal(found.mask, [ids == 1, ids == 3])
    np.testing.assert_allclose(found.confidence, [0.1, 0.3])
    np.testing.assert_array_equal(found.class_id, [1, 0])
    assert found.data["class_name"].tolist() == ["cat", "sky"]
    assert prediction_of(ids).to_supervision("semantic").confidence is None
    assert len(prediction_of(np.zeros_like(ids)).to_supervision()) == 0


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(OneFormerError, match=r"supervision is not installed\n  -> pip install .*\[supervision\]"):
        prediction_of(np.ones((2, 2), np.int32)).to_supervision()
