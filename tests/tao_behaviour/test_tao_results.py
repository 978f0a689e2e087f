"""Scores and results that TAO gets wrong; the numbers are those of behaviour.yaml."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.data.geometry import EvaluationPolicy
from oneformer_jax.evaluation.evaluator import Evaluator
from oneformer_jax.postprocess.results import Thresholds, finished_result
from oneformer_jax.tasks import TASKS, Task

CATEGORIES = [{"id": 0, "name": "sky", "isthing": 0}, {"id": 1, "name": "pole", "isthing": 1}]
POLICIES = [EvaluationPolicy(64, 96), EvaluationPolicy(32, 32, squeeze=(32, 32))]
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def sky_and_pole(tmp_path: Path) -> Path:
    """One picture of 40 x 50: sky, and a pole that is one pixel wide."""
    ids = np.zeros((40, 50, 3), np.uint8)
    ids[..., 0] = 1
    ids[:, 20, 0] = 2
    (tmp_path / "panoptic").mkdir()
    for folder in (tmp_path, tmp_path / "panoptic"):
        Image.fromarray(ids).save(folder / "a.png")
    segments = [{"id": 1, "category_id": 0, "iscrowd": 0}, {"id": 2, "category_id": 1, "iscrowd": 0}]
    image = {"id": 1, "file_name": "a.png", "height": 40, "width": 50}
    annotation = {"image_id": 1, "file_name": "a.png", "segments_info": segments}
    content = {"images": [image], "annotations": [annotation], "categories": CATEGORIES}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    return tmp_path


class OnlySky:
    """Finds sky everywhere."""

    num_classes = 2

    def predict(self, images: np.ndarray, sizes: np.ndarray, tasks: tuple[Task, ...]) -> dict[Task, tuple]:
        class_logits = np.full((len(images), 2, 3), -20, np.float32)
        class_logits[:, 0, 0] = class_logits[:, 1, 2] = 20
        mask_logits = np.full((len(images), 2, images.shape[1] // 4, images.shape[2] // 4), 20, np.float32)
        return dict.fromkeys(tasks, (class_logits, mask_logits))


@pytest.mark.tao(11)
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_the_pixels_of_the_original_are_scored(sky_and_pole: Path, policy: EvaluationPolicy) -> None:
    """There a truth of 32 x 32 pixels would be scored; here one column of fifty is wrong, however it was resized."""
    source = Source(sky_and_pole / "annotations.json", sky_and_pole, sky_and_pole / "panoptic")
    metrics = Evaluator(open_sources([source]), policy, policy.name, batch_size=1, tasks=("semantic",)).run(OnlySky())
    assert metrics.scores["semantic"].overall["pixel_accuracy"] == 49 / 50
    assert metrics.scores["semantic"].per_class["IoU"].tolist() == [49 / 50, 0]


SCORE_WITH_ONE_AND_WITH_TWO = """
import json, sys
from pathlib import Path
import jax.numpy as jnp
from oneformer_jax.data.geometry import EvaluationPolicy
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.evaluation.evaluator import Evaluator
from oneformer_jax.evaluation.report import metrics_json
from oneformer_jax.predict.jax_backend import JaxBackend, OnDeviceBackend, oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.predictions import Predictions
from oneformer_jax.training.sharding import make_mesh

# In place of the network: red, green and blue are masks of the first three of seven classes.
def predict(params, images, tokens, config):
    classes = jnp.broadcast_to(10 * jnp.eye(3, 8), (len(images), 3, 8))
    return Predictions(classes, jnp.moveaxis(images[:, ::4, ::4], 3, 1))

oneformer.encode, oneformer.predict = lambda params, images, config: images, predict
folder, policy = Path(sys.argv[1]), EvaluationPolicy(64, 64)
dataset = open_sources([Source(folder / "annotations.json", folder / "images", folder / "panoptic")])
for kind in (JaxBackend, OnDeviceBackend):
    for devices in (1, 2):
        backend = kind(OneFormerConfig(num_classes=7), {}, (120.0,) * 3, (60.0,) * 3, make_mesh(devices))
        metrics = Evaluator(dataset, policy, policy.name, batch_size=2).run(backend)
        print(json.dumps(metrics_json(metrics)))
"""


@pytest.mark.slow
@pytest.mark.tao(12)
def test_several_devices_score_what_one_scores(five_pictures: Path) -> None:
    """There each device scores its own share and the first one reports; here five images are five, on two devices,
    whether these post-process or NumPy does."""
    result = subprocess.run(
        [sys.executable, "-c", SCORE_WITH_ONE_AND_WITH_TWO, str(five_pictures)],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"},
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert result.returncode == 0, result.stderr
    one, two, *on_devices = map(json.loads, result.stdout.splitlines())
    assert one["num_images"] == 5
    assert 0 < one["mIoU"] < 1
    assert two == one
    assert on_devices[0] == on_devices[1]
    for name in ("num_images", "mIoU", "PQ", "AP"):
        assert on_devices[0][name] == pytest.approx(one[name], abs=2e-3)


@pytest.mark.tao(19)
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
@pytest.mark.parametrize("task", TASKS)
def test_results_have_the_size_of_the_image(task: Task, policy: EvaluationPolicy) -> None:
    """There results are as large as the network's input; here as the picture was."""
    geometry = policy((40, 50))
    size = (geometry.padded[0] // 4, geometry.padded[1] // 4)
    class_logits = np.array([[-20, 20, -20]], np.float32)
    is_thing = np.array([False, True])
    mask_logits = np.full((1, *size), 20, np.float32)
    result = finished_result({task: (class_logits, mask_logits)}, geometry, is_thing, Thresholds())
    sizes: dict[Task, Callable[[], tuple[int, ...]]] = {
        "semantic": lambda: result.semantic.shape,
        "panoptic": lambda: result.panoptic.ids.shape,
        "instance": lambda: coco_mask.decode(result.instance[0].mask).shape,
    }
    assert sizes[task]() == (40, 50)


@pytest.mark.tao(23)
def test_raw_ids_keep_names_and_stuff(sky_and_pole: Path) -> None:
    """There names shift by one and all are things; here the raw id is the index, and sky stays stuff."""
    source = Source(sky_and_pole / "annotations.json", sky_and_pole, sky_and_pole / "panoptic")
    raw, counted = (open_sources([source], contiguous_id=flag) for flag in (False, True))
    assert raw.categories == counted.categories
    assert raw.categories.names == ("sky", "pole")
    assert raw.categories.is_thing.tolist() == [False, True]
    assert [segment.category for segment in raw.records[0].segments] == [0, 1]
