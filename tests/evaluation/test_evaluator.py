import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oneformer_jax.app.actions.evaluate import metrics_table
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.data.geometry import Geometry, short_edge
from oneformer_jax.errors import DataError
from oneformer_jax.evaluation.evaluator import Evaluator, Metrics, Stopped
from oneformer_jax.evaluation.report import metrics_json, percent

SIZES = [(40, 50), (50, 40), (40, 50), (33, 60), (40, 50), (64, 64)]
CATEGORIES = [
    {"id": 10, "name": "cat", "isthing": 1},
    {"id": 20, "name": "sky", "isthing": 0},
    {"id": 30, "name": "dog", "isthing": 1},
    {"id": 40, "name": "sea", "isthing": 0},
]


def unscaled(size: tuple[int, int]) -> Geometry:
    """The image as it is, padded to a multiple of 32."""
    return short_edge(size, min(size), max(size))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Six images: sky, two cats side by side, a void margin. The red value of a pixel is the number of its image."""
    images, annotations = [], []
    for number, (height, width) in enumerate(SIZES):
        Image.fromarray(np.full((height, width, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
        ids = np.zeros((height, width, 3), np.uint8)
        ids[:20, :, 0] = 1
        ids[20:30, 2:12, 0] = 2
        ids[20:30, 12:30, 0] = 3
        (tmp_path / "panoptic").mkdir(exist_ok=True)
        Image.fromarray(ids).save(tmp_path / "panoptic" / f"{number}.png")
        segments = [{"id": i, "category_id": c, "iscrowd": 0} for i, c in ((1, 20), (2, 10), (3, 10))]
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        annotations.append({"image_id": number, "file_name": f"{number}.png", "segments_info": segments})
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    return open_sources([Source(tmp_path / "annotations.json", tmp_path, tmp_path / "panoptic")])


class Oracle:
    """Recognises the image by its colour and answers with masks from the annotation, at the resolution of the input."""

    def __init__(self, dataset: Dataset, classes: int = 4) -> None:
        self.dataset, self.num_classes = dataset, classes
        self.shapes: list[tuple[int, ...]] = []
        self.seen: list[int] = []

    def predict(self, images, sizes, tasks):
        self.shapes.append(images.shape)
        class_logits = np.full((len(images), 5, self.num_classes + 1), -20, np.float32)
        class_logits[:, 3:, -1] = 20  # two queries without an object
        mask_logits = np.full((len(images), 5, *images.shape[1:3]), -20, np.float32)
        for row, (image, size) in enumerate(zip(images, sizes, strict=True)):
            number = int(image[0, 0, 0])
            self.seen.append(number)
            record, planes = self.dataset.records[number], self.dataset.read_segments(number)
            assert tuple(size) == planes.shape[1:]
            assert not image[size[0] :].any()
            assert not image[:, size[1] :].any()
            for query, segment in enumerate(record.segments):
                class_logits[row, query, segment.category] = 20
                mask_logits[row, query, : size[0], : size[1]][(planes == query).any(axis=0)] = 20
        return dict.fromkeys(tasks, (class_logits, mask_logits))


def evaluator(dataset: Dataset, **options) -> Evaluator:
    return Evaluator(dataset, unscaled, "unscaled", **{"batch_size": 2, "workers": 2, **options})


def test_an_oracle_is_perfect_and_sees_static_shapes(dataset: Dataset) -> None:
    oracle, progress = Oracle(dataset), []
    metrics = evaluator(dataset).run(oracle, lambda done, total: progress.append((done, total)))
    result = metrics_json(metrics)
    assert result["num_images"] == 6
    assert result["geometry"] == "unscaled"
    for key in ("mIoU", "pixel_accuracy", "PQ", "SQ", "RQ", "PQ_things", "PQ_stuff", "AP", "AP50", "AP75"):
        assert result[key] == pytest.approx(1), key
    assert result["per_class"]["sky"] == {"IoU": 1, "PQ": 1, "SQ": 1, "RQ": 1, "AP": None}
    assert result["per_class"]["dog"] == dict.fromkeys(("IoU", "PQ", "SQ", "RQ", "AP"))
    json.dumps(result, allow_nan=False)
    assert progress == [(done, 6) for done in range(1, 7)]
    assert set(oracle.shapes) == {(2, 64, 64, 3)}, "all six images pad to one shape"
    assert sorted(oracle.seen) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("before_batch", [0, 1])
def test_one_that_is_asked_to_stop_stops_in_all_processes(dataset: Dataset, before_batch: int) -> None:
    oracle, gathered = Oracle(dataset), []

    def gather(own):
        gathered.append(own)
        return [{None: "what another process has found"}, own]

    with pytest.raises(Stopped):
        evaluator(dataset, gather=gather).run(oracle, stop=lambda: len(oracle.shapes) == before_batch)
    assert gathered == [None]
    assert len(oracle.shapes) == before_batch


def test_one_whose_other_process_is_asked_to_stop_stops(dataset: Dataset) -> None:
    oracle = Oracle(dataset)
    with pytest.raises(Stopped):
        evaluator(dataset, gather=lambda own: [own, None]).run(oracle)
    assert len(oracle.shapes) == 3


@pytest.mark.tao(12, 18)
def test_batches_hold_one_padded_shape_and_the_last_is_filled(dataset: Dataset) -> None:
    def grouped(size: tuple[int, int]) -> Geometry:
        padded = (64, 64) if size == (40, 50) else (64, 96)
        return Geometry(size, size, padded)

    oracle = Oracle(dataset)
    metrics = Evaluator(dataset, grouped, "grouped", batch_size=4, workers=2).run(oracle)
    assert oracle.shapes == [(4, 64, 64, 3), (4, 64, 96, 3)]
    assert sorted(oracle.seen) == [0, 1, 2, 3, 4, 4, 5, 5]
    assert metrics.num_images == 6, "repetitions are not scored"
    assert metrics_json(metrics)["PQ"] == pytest.approx(1)


@pytest.mark.tao(10)
def test_scores_do_not_depend_on_the_batch_size(dataset: Dataset) -> None:
    class Noisy(Oracle):
        def predict(self, images, sizes, tasks):
            result = super().predict(images, sizes, tasks)
            for row, image in enumerate(images):
                rng = np.random.default_rng(int(image[0, 0, 0]))
                for class_logits, mask_logits in result.values():
                    class_logits[row] += rng.normal(scale=15, size=class_logits[row].shape).astype(np.float32)
                    mask_logits[row] += rng.normal(scale=15, size=mask_logits[row].shape).astype(np.float32)
                    break  # the tasks share their arrays
            return result

    one, three = (metrics_json(evaluator(dataset, batch_size=size).run(Noisy(dataset))) for size in (1, 3))
    assert one == three
    assert 0 < one["mIoU"] < 1


def test_only_the_tasks_asked_for(dataset: Dataset) -> None:
    result = metrics_json(evaluator(dataset, tasks=("semantic",)).run(Oracle(dataset)), per_class=False)
    assert set(result) == {"num_images", "geometry", "mIoU", "pixel_accuracy"}


def test_more_outputs_than_categories_are_allowed_fewer_are_not(dataset: Dataset) -> None:
    result = metrics_json(evaluator(dataset).run(Oracle(dataset, classes=6)))
    assert result["PQ"] == pytest.approx(1)
    assert list(result["per_class"])[4:] == ["(output 4 of the model)", "(output 5 of the model)"]
    with pytest.raises(DataError, match="num_classes is 3"):
        evaluator(dataset).run(Oracle(dataset, classes=3))


def test_the_table_shows_percent(dataset: Dataset) -> None:
    metrics = evaluator(dataset).run(Oracle(dataset))
    console = Screen(width=120, file=io.StringIO(), record=True)
    console.print(metrics_table(metrics))
    text = console.export_text()
    assert "100.0" in text
    assert "things" in text
    assert "nan" not in text.lower()


def test_repeated_category_names_stay_apart() -> None:
    metrics = Metrics(("a", "b", "a"), 1, "square")
    assert list(metrics_json(metrics)["per_class"]) == ["a (class 0)", "b", "a (class 2)"]


def test_a_score_without_a_value_is_a_dash() -> None:
    assert [percent(value) for value in (0.5664, 0.0, 1.0, math.nan)] == ["56.6", "0.0", "100.0", "-"]
