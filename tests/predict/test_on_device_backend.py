"""A backend whose devices post-process, beside the one that leaves it to NumPy; and what its programs are for a GPU."""

import re
import time
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import monitoring
from jax.sharding import Mesh
from pycocotools import mask as coco_mask

from oneformer_jax.checkpoints.contents import bytes_of
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.data.drawn_shapes import write_drawn_shapes
from oneformer_jax.data.geometry import EvaluationPolicy, Geometry
from oneformer_jax.errors import OneFormerError
from oneformer_jax.evaluation.backend import Asked, DecidingBackend, compiling_ahead, pending_results
from oneformer_jax.evaluation.evaluator import Evaluator
from oneformer_jax.evaluation.report import metrics_json
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.predictions import Features, Predictions
from oneformer_jax.postprocess.results import Result, Thresholds
from oneformer_jax.predict.jax_backend import JaxBackend, OnDeviceBackend, backend_on
from oneformer_jax.predict.on_device.decided import program
from oneformer_jax.predict.on_device.sampling import sampling_of
from oneformer_jax.tasks import TASKS, Task

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]

GEOMETRIES = Geometry((90, 150), (60, 90), (64, 96)), Geometry((64, 40), (64, 40), (64, 96))
IS_THING = np.array([True, False, True])
LARGE = Geometry((1024, 1024), (1024, 1024), (1024, 1024))
QUERIES, CLASSES = 150, 133
BACKENDS = JaxBackend, OnDeviceBackend
CONFIG = OneFormerConfig(num_classes=3)
DATA = Path("annotations.json"), Path("images"), Path("panoptic")


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the model: queries whose masks are mixtures of the colours, and whose classes depend on the task."""
    rng = np.random.default_rng(0)
    classes, mix = rng.normal(scale=2, size=(9, 20)).astype(np.float32), rng.normal(scale=4, size=(9, 3))

    def encode(params: Any, images: jax.Array, config: Any) -> Features:
        colours = images[:, ::4, ::4]
        return Features(colours, (colours,) * 3)

    def predict(params: Any, features: Features, tokens: jax.Array, config: OneFormerConfig) -> Predictions:
        known = classes[:, [*range(config.num_classes), -1]]
        of_task = jnp.sin(tokens.sum(axis=1)[:, None, None] + jnp.arange(known.shape[1])[None, None])
        masks = jnp.einsum("bhwc,qc->bqhw", features.mask_features, mix.astype(np.float32))
        return Predictions(known[None] + of_task, masks - 1)

    monkeypatch.setattr(oneformer, "encode", encode)
    monkeypatch.setattr(oneformer, "predict", predict)


def results(backend: JaxBackend, thresholds: Thresholds) -> list[Result]:
    fields = np.random.default_rng(1).integers(0, 256, (2, 8, 12, 3), np.uint8)
    images = np.stack([cv2.resize(field, (96, 64), interpolation=cv2.INTER_CUBIC) for field in fields])
    asked = Asked(TASKS, IS_THING, thresholds)
    return [result() for result in pending_results(backend, images, GEOMETRIES, asked)]


@pytest.mark.parametrize("thresholds", [Thresholds(0.0, 0.0, 100), Thresholds(0.4, 0.5, 2), Thresholds(1.0, 0.5, 0)])
def test_results_are_those_of_numpy(network: None, thresholds: Thresholds) -> None:
    numpy, device = (kind(CONFIG, {}, (127.0,) * 3, (60.0,) * 3) for kind in BACKENDS)
    assert isinstance(device, DecidingBackend)
    assert not isinstance(numpy, DecidingBackend)
    for expected, found in zip(results(numpy, thresholds), results(device, thresholds), strict=True):
        assert found.semantic.dtype == expected.semantic.dtype
        assert (found.semantic != expected.semantic).mean() < 1e-3
        assert (found.panoptic.ids != expected.panoptic.ids).mean() < 1e-3
        assert found.panoptic.ids.dtype == expected.panoptic.ids.dtype
        for mine, other in zip(found.panoptic.segments, expected.panoptic.segments, strict=True):
            assert (mine.id, mine.category, mine.isthing) == (other.id, other.category, other.isthing)
            assert mine.score == pytest.approx(other.score, rel=1e-4)
        for mine, other in zip(found.instance, expected.instance, strict=True):
            assert mine.category == other.category
            assert mine.score == pytest.approx(other.score, rel=1e-3)
            assert coco_mask.iou([mine.mask], [other.mask], [False])[0, 0] > 0.99
        if thresholds.object_mask_threshold == 0:
            assert len(found.instance) > 2
            assert len(found.panoptic.segments) > 2
            assert len(np.unique(found.semantic)) > 1


@pytest.mark.parametrize("kind", BACKENDS)
def test_numbers_that_are_not_finite_are_no_result(
    network: None, monkeypatch: pytest.MonkeyPatch, kind: type[JaxBackend]
) -> None:
    """Of one image of the batch; the other has its own."""
    backend, predict = kind(CONFIG, {}, (127.0,) * 3, (60.0,) * 3), oneformer.predict

    def diverged(*inputs: Any, **facts: Any) -> Predictions:
        class_logits, mask_logits = predict(*inputs, **facts)
        return Predictions(class_logits.at[1, 2, 0].set(jnp.nan), mask_logits)

    monkeypatch.setattr(oneformer, "predict", diverged)
    for task in TASKS:
        pending = pending_results(
            backend, np.zeros((2, 64, 96, 3), np.uint8), GEOMETRIES, Asked((task,), IS_THING, Thresholds())
        )
        pending[0]()
        with pytest.raises(OneFormerError, match="returns numbers that are not finite"):
            pending[1]()


def test_scores_are_those_of_numpy(network: None, tmp_path: Path) -> None:
    """Of five pictures in batches of two."""
    write_drawn_shapes(tmp_path, {"val": 5}, size=64)
    dataset = open_sources([Source(*(tmp_path / "val" / name for name in DATA))])
    numpy, device = (
        metrics_json(
            Evaluator(dataset, EvaluationPolicy(64, 64), "", batch_size=2, workers=2).run(
                kind(OneFormerConfig(num_classes=len(dataset.categories.items)), {}, (127.0,) * 3, (60.0,) * 3)
            )
        )
        for kind in BACKENDS
    )
    for name in ("num_images", "mIoU", "PQ", "AP"):
        assert device[name] == pytest.approx(numpy[name], abs=1e-3), name


@pytest.mark.parametrize("kind", BACKENDS)
def test_what_was_compiled_ahead_is_not_compiled_again(network: None, kind: type[JaxBackend]) -> None:
    """For two padded shapes, one of them with two sizes of pictures that need different programs."""
    large = Geometry((200, 300), (64, 96), (64, 96)), Geometry((20, 300), (64, 96), (64, 96))
    batches = [GEOMETRIES, large, (Geometry((30, 30), (30, 30), (32, 32)),) * 2]
    backend, events = kind(CONFIG, {}, (127.0,) * 3, (60.0,) * 3), []
    asked = Asked(TASKS, IS_THING, Thresholds())

    def listen(event: str, *_: Any, **__: Any) -> None:
        events.append(event)

    with compiling_ahead(backend, batches, asked):
        while backend.compiled != (2, 2):
            time.sleep(0.01)
        monitoring.register_event_duration_secs_listener(listen)
        try:
            for batch in batches:
                images = np.zeros((2, *batch[0].padded, 3), np.uint8)
                pending = pending_results(backend, images, batch, asked)
                assert [result().semantic.shape for result in pending] == [geometry.original for geometry in batch]
        finally:
            monitoring.unregister_event_duration_listener(listen)
    assert not [event for event in events if "compile" in event]


def test_a_cpu_leaves_it_to_numpy() -> None:
    mesh = Mesh(np.array(jax.devices("cpu")[:1]), ("data",))
    assert type(backend_on(mesh, CONFIG, {}, (0.0,) * 3, (1.0,) * 3)) is JaxBackend


def inputs_of(task: Task, images: int) -> tuple:
    """Shapes of a rule's arguments, of pictures of 1024x1024."""
    sampling = sampling_of([LARGE] * images, (256, 256))
    logits = [(QUERIES, CLASSES + 1), (QUERIES, 256, 256)]
    arrays = [jax.ShapeDtypeStruct((images, *shape), jnp.float32) for shape in logits]
    more = {"instance": [np.zeros((images, CLASSES), bool)], "panoptic": [np.zeros(images, np.float32)], "semantic": []}
    return *arrays, sampling, *more[task]


@pytest.mark.parametrize("task", TASKS)
def test_what_leaves_the_device_is_a_megabyte_and_a_gpu_needs_no_host_for_it(task: Task) -> None:
    mesh = Mesh(np.array(jax.devices("cpu")[:1]), ("data",))
    traced = program(task, mesh, 100).trace(*inputs_of(task, 2))
    leaves = traced.out_info[0] if task == "instance" else traced.out_info
    assert bytes_of(leaves) / 2 <= 1.1e6, "a picture's share; its logits are 39 MB"
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    text = re.sub(r'"(\\.|[^"\\])*"', '""', text)
    assert set(re.findall(r"custom_call @(\S+?)\(", text)) <= {
        "Sharding",
        "SPMDFullToShardShape",
        "SPMDShardToFullShape",
    }
    assert not re.search("callback|infeed|outfeed|f64|stablehlo.(send|recv)", text)
