"""Scores on COCO instance files, whose masks overlap, and on several files together."""

import io
import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from oneformer_jax.app.actions.evaluate import metrics_table
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.data.geometry import Geometry, short_edge
from oneformer_jax.evaluation.evaluator import Evaluator
from oneformer_jax.evaluation.metrics import GroundTruth, count_segments, mask_average_precision, true_instances
from oneformer_jax.evaluation.report import headline, metrics_json
from oneformer_jax.postprocess.results import (
    Instance,
    PanopticResult,
    PanopticSegment,
    Thresholds,
    instance_segmentation,
)

HEIGHT, WIDTH, QUERIES = 40, 56, 8
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 5, "name": "bird"}]


def unscaled(size: tuple[int, int]) -> Geometry:
    return short_edge(size, min(size), max(size))


def write(folder: Path, annotations: list[dict[str, Any]], images: int, first_color: int = 0) -> Path:
    """`instances.json`; the red value of picture i, counted from 0, is `first_color + i`."""
    folder.mkdir(exist_ok=True)
    entries = []
    for i in range(images):
        Image.new("RGB", (WIDTH, HEIGHT), (first_color + i, 0, 0)).save(folder / f"{i}.png")
        entries.append({"id": i + 10, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH})
    content = {"images": entries, "annotations": annotations, "categories": CATEGORIES}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "instances.json"


def random_annotations(images: int, seed: int) -> list[dict[str, Any]]:
    """Overlapping polygons and, as run lengths, crowds; the last image has none."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    for i in range(images - 1):
        for _ in range(rng.integers(2, 7)):
            x, y = rng.uniform(0, WIDTH - 16), rng.uniform(0, HEIGHT - 16)
            angles = np.sort(rng.uniform(0, 2 * np.pi, 8))
            outline = np.stack([x + 8 + 8 * np.cos(angles), y + 8 + 8 * np.sin(angles)], -1).ravel().tolist()
            crowd = bool(rng.random() < 0.2)
            rle = coco_mask.merge(coco_mask.frPyObjects([outline], HEIGHT, WIDTH))
            counts = {**rle, "counts": rle["counts"].decode()}
            entry = {"id": len(annotations) + 1, "image_id": i + 10, "iscrowd": int(crowd)}
            entry |= {"area": float(coco_mask.area(rle)), "category_id": CATEGORIES[rng.integers(3)]["id"]}
            annotations.append(entry | {"segmentation": counts if crowd else [outline]})
    return annotations


class Shifted:
    """Answers with the annotated masks, moved a little, and with blurred classes; by the red value of the image."""

    num_classes = len(CATEGORIES)

    def __init__(self, dataset: Dataset, shift: int = 1, noise: float = 3.0) -> None:
        self.dataset, self.shift, self.noise = dataset, shift, noise

    def logits(self, i: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(i)
        classes = rng.normal(scale=self.noise, size=(QUERIES, len(CATEGORIES) + 1)).astype(np.float32)
        masks = np.full((QUERIES, *shape), -9, np.float32)
        planes = self.dataset.read_segments(i)
        for query, segment in enumerate(self.dataset.records[i].segments[:QUERIES]):
            mask = np.roll((planes == query).any(axis=0), self.shift * query % 4, axis=1)
            masks[query, :HEIGHT, :WIDTH][mask] = 9
            classes[query, segment.category] += 6
        classes[len(self.dataset.records[i].segments) :, -1] += 6
        return classes, masks

    def predict(self, images, sizes, tasks):
        both = [self.logits(int(image[0, 0, 0]), image.shape[:2]) for image in images]
        return dict.fromkeys(tasks, tuple(np.stack(arrays) for arrays in zip(*both, strict=True)))


def test_ap_is_pycocotools_on_the_file_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, random_annotations(8, seed=1), 8)
    dataset = open_sources([Source(path, tmp_path)])
    backend = Shifted(dataset)
    assert dataset.planes > 1
    ours = metrics_json(Evaluator(dataset, unscaled, "unscaled", 3, tasks=("instance",)).run(backend))

    coco, results = COCO(str(path)), []
    for i, record in enumerate(dataset.records):
        geometry = unscaled((HEIGHT, WIDTH))
        for found in instance_segmentation(
            *backend.logits(i, geometry.padded), geometry, dataset.categories.is_thing, Thresholds()
        ):
            category = CATEGORIES[found.category]["id"]
            result = {"image_id": record.image_id, "category_id": category, "score": found.score}
            results.append(result | {"segmentation": found.mask})
    reference = COCOeval(coco, coco.loadRes(results), "segm")
    reference.evaluate()
    reference.accumulate()
    reference.summarize()
    capsys.readouterr()
    assert (ours["AP"], ours["AP50"], ours["AP75"]) == pytest.approx(tuple(reference.stats[:3]), abs=1e-12)
    assert 0.05 < ours["AP"] < 0.95


def box(number: int, category: int, x: int, y: int, w: int, h: int) -> dict[str, Any]:
    outline = [x, y, x + w, y, x + w, y + h, x, y + h]
    return {"id": number, "image_id": 10, "category_id": category, "iscrowd": 0, "segmentation": [outline]}


def test_whole_masks_count_for_ap_and_the_front_one_for_the_rest(tmp_path: Path) -> None:
    """A dog in front of a cat: a prediction of both whole masks is perfect, and so is the partition that it makes."""
    path = write(tmp_path, [box(1, 7, 0, 0, 20, 20), box(2, 3, 4, 4, 6, 6)], 1)
    dataset = open_sources([Source(path, tmp_path)])
    assert [segment.id for segment in dataset.records[0].segments] == [2, 1]
    scores = headline(Evaluator(dataset, unscaled, "unscaled", 1).run(Shifted(dataset, shift=0, noise=0.0)))
    assert scores["AP"] == pytest.approx(1)

    class Partition(Shifted):
        def logits(self, i: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
            classes, masks = super().logits(i, shape)
            masks[1][masks[0] > 0] = -9
            return classes, masks

    metrics = Evaluator(dataset, unscaled, "unscaled", 1).run(Partition(dataset, shift=0, noise=0.0))
    scores = headline(metrics)
    assert (scores["mIoU"], scores["pixel_accuracy"]) == pytest.approx((1, 1))
    assert (scores["PQ"], scores["PQ_things"]) == pytest.approx((1, 1))
    assert scores["AP"] < 1
    assert np.isnan(scores["PQ_stuff"])


def test_hundreds_of_objects_in_one_image(tmp_path: Path) -> None:
    """300 cats of 2 x 3 pixels, all found. AP takes 100 detections: 34 of its 101 recalls are reached, up to 1/3."""
    places = [(x, y) for y in range(0, 39, 3) for x in range(0, 55, 2)][:300]
    boxes = [box(number, 7, x, y, 2, 3) for number, (x, y) in enumerate(places, start=1)]
    dataset = open_sources([Source(write(tmp_path, boxes, 1), tmp_path)])
    truth = GroundTruth.from_segments(dataset.read_segments(0), dataset.records[0].segments)
    true = true_instances(truth, dataset.categories.is_thing)
    found = [Instance(t.category, 0.9 - i / 1000, t.mask, (0.0, 0.0, 2.0, 3.0)) for i, t in enumerate(true)]
    scores = mask_average_precision([found], [true], [(HEIGHT, WIDTH)], dataset.categories.is_thing)
    assert scores.overall["AP"] == pytest.approx(34 / 101)
    segments = tuple(PanopticSegment(i, 0, True, 1.0, 6) for i in range(1, 301))
    counts = count_segments(PanopticResult(truth.index.astype(np.int32) + 1, segments), truth, 3)
    assert (counts.true_positives[0], counts.iou[0], counts.false_positives.sum()) == (300, 300, 0)


def test_a_prediction_where_nothing_is_annotated(tmp_path: Path) -> None:
    """It lies on void for mIoU and PQ; AP knows that the file lists every thing of the image."""
    path = write(tmp_path, [box(1, 7, 0, 0, 20, 20)], 2)
    dataset = open_sources([Source(path, tmp_path)])

    class Eager(Shifted):
        def logits(self, i: int, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
            classes, masks = super().logits(i, shape)
            if i == 1:
                classes[0], masks[0, :9, :9] = (20, -20, -20, -20), 9
            return classes, masks

    scores = headline(Evaluator(dataset, unscaled, "unscaled", 2).run(Eager(dataset, shift=0, noise=0.0)))
    assert (scores["mIoU"], scores["PQ"]) == pytest.approx((1, 1))
    assert scores["AP"] < 0.6


def test_several_data_sets_are_scored_together_and_each_alone(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / name, random_annotations(count, seed=count), count, first_color=start)
        for name, count, start in (("near", 3, 0), ("far", 6, 3))
    ]
    sources = [Source(path, path.parent, name=path.parent.name) for path in paths]
    dataset = open_sources(sources)
    backend = Shifted(dataset)
    metrics = Evaluator(dataset, unscaled, "unscaled", 2).run(backend)
    result = metrics_json(metrics)
    assert (result["num_images"], result["num_images/near"], result["num_images/far"]) == (9, 3, 6)

    def scores_of(chosen: range) -> dict[str, float]:
        class Some(Dataset):
            records = tuple(dataset.records[i] for i in chosen)
            categories, where, planes = dataset.categories, "", dataset.planes
            parts = MappingProxyType({"": range(len(chosen))})

            def read_segments(self, i: int) -> np.ndarray:
                return dataset.read_segments(chosen[i])

        return headline(Evaluator(Some(), unscaled, "unscaled", 2).run(backend))

    for name, chosen in (("near", range(3)), ("far", range(3, 9))):
        for key, value in scores_of(chosen).items():
            assert headline(metrics)[f"{key}/{name}"] == pytest.approx(value, nan_ok=True), (key, name)
    whole = scores_of(range(9))
    for key, value in whole.items():
        assert headline(metrics)[key] == pytest.approx(value, nan_ok=True), key
    halves = (result["mIoU/near"] + result["mIoU/far"]) / 2
    assert abs(result["mIoU"] - halves) > 1e-6, "over all images, not a mean of means"
    console = Screen(width=120, record=True, file=io.StringIO())
    console.print(metrics_table(metrics))
    text = console.export_text()
    assert "near (3)" in text
    assert "far (6)" in text
