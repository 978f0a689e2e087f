import json
import math
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from oneformer_jax.data.datasets.coco_panoptic import segment_rows
from oneformer_jax.data.datasets.dataset import Segment
from oneformer_jax.evaluation.metrics import GroundTruth, mask_average_precision, true_instances
from oneformer_jax.postprocess.results import Instance

IS_THING = np.array([True, False, True, True])
SIZE = (24, 30)


def instance(category: int, score: float, mask: np.ndarray) -> Instance:
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return Instance(category, score, encoded, tuple(coco_mask.toBbox(encoded).tolist()))


def scene(seed: int) -> tuple[GroundTruth, list[Instance]]:
    """Rectangles of random classes, some crowds; predictions are shifted rectangles and false alarms."""
    rng = np.random.default_rng(seed)
    panoptic, segments, found = np.zeros(SIZE, np.int32), [], []
    for value in range(1, 8):
        y, x = int(rng.integers(16)), int(rng.integers(22))
        panoptic[y : y + 8, x : x + 8] = value
        segments.append(Segment(value, int(rng.integers(3)), bool(rng.random() < 0.2)))
        mask = np.zeros(SIZE, np.uint8)
        shift = int(rng.integers(4))
        mask[y + shift : y + 8, x : x + 8 - shift // 2] = 1
        category = segments[-1].category if rng.random() < 0.8 else 2
        if IS_THING[category] and mask.any():
            found.append(instance(category, float(rng.random()), mask))
    present = set(np.unique(panoptic).tolist())
    segments = [s for s in segments if s.id in present]
    return GroundTruth.from_segments(segment_rows(panoptic, segments)[None], segments), found


def test_is_cocos_own_result_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = [scene(seed) for seed in range(6)]
    ours = mask_average_precision(
        [found for _, found in scenes], [true_instances(t, IS_THING) for t, _ in scenes], [SIZE] * 6, IS_THING
    )
    assert capsys.readouterr().out == ""

    def readable(encoded: dict) -> dict:
        return {**encoded, "counts": encoded["counts"].decode()}

    annotations, results = [], []
    for image, (truth, found) in enumerate(scenes):
        for row, (category, crowd) in enumerate(zip(truth.categories, truth.iscrowd, strict=True)):
            if IS_THING[category]:
                mask = coco_mask.encode(np.asfortranarray(truth.index == row, np.uint8))
                entry = {"id": len(annotations) + 1, "image_id": image, "category_id": int(category)}
                area = float(coco_mask.area(mask))
                annotations.append({**entry, "iscrowd": int(crowd), "segmentation": readable(mask), "area": area})
        results += [
            {"image_id": image, "category_id": f.category, "score": f.score, "segmentation": readable(f.mask)}
            for f in found
        ]
    images = [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(6)]
    categories = [{"id": k, "name": str(k)} for k in (0, 2, 3)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "gt.json").write_text(json.dumps(content))
    (tmp_path / "dt.json").write_text(json.dumps(results))
    coco = COCO(str(tmp_path / "gt.json"))
    reference = COCOeval(coco, coco.loadRes(str(tmp_path / "dt.json")), "segm")
    reference.evaluate()
    reference.accumulate()
    reference.summarize()
    assert list(ours.overall.values()) == pytest.approx(list(reference.stats[:3]), abs=1e-12)
    assert 0.05 < ours.overall["AP"] < 0.95
    assert np.isnan(ours.per_class["AP"]).tolist() == [False, True, False, True]
    assert np.nanmean(ours.per_class["AP"]) == pytest.approx(ours.overall["AP"])


def test_the_truth_as_prediction_is_perfect() -> None:
    truths = [true_instances(scene(seed)[0], IS_THING) for seed in range(3)]
    found = [
        [Instance(t.category, 0.5, t.mask, (0.0, 0.0, 0.0, 0.0)) for t in image if not t.iscrowd] for image in truths
    ]
    scores = mask_average_precision(found, truths, [SIZE] * 3, IS_THING)
    assert scores.overall == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1})


def test_no_prediction_is_zero_and_no_truth_is_undefined() -> None:
    truth, found = scene(0)
    assert mask_average_precision([[]], [true_instances(truth, IS_THING)], [SIZE], IS_THING).overall["AP"] == 0
    assert math.isnan(mask_average_precision([found], [()], [SIZE], IS_THING).overall["AP"])
    assert math.isnan(mask_average_precision([[]], [()], [SIZE], np.zeros(4, bool)).overall["AP"])
