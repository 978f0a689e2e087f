"""Engines of graphs with post-processing, through the fake of TensorRT."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from fake_tensorrt import Builder, plan_of
from small_graph import SIZE, small_results_model

from oneformer_jax.errors import EngineError
from oneformer_jax.predict.metadata import RESULTS
from oneformer_jax.predict.predictor import load_model
from oneformer_jax.predict.tensorrt_engine import TensorRTEngine
from oneformer_jax.tasks import TASKS, Task

Build = Callable[..., Path]
KEYS = "gen_trt_engine"
RANGE = (f"{KEYS}.tensorrt.opt_batch_size=2", f"{KEYS}.tensorrt.max_batch_size=3")


@pytest.mark.parametrize("kind", TASKS)
def test_an_engine_of_results_returns_them(build: Build, exported: Path, photos: Path, kind: Task) -> None:
    onnx.save(small_results_model(kind), exported)
    path = build(*RANGE, f"{KEYS}.tensorrt.data_type=fp32", f"dataset.test.images={photos}")
    assert plan_of(path)["profile"] == {"images": tuple((size, SIZE, SIZE, 3) for size in (1, 2, 3))}
    report = json.loads(path.with_name("model.engine.report.json").read_text())
    assert report["passed"]
    assert report["images"] == {"random": 1 + 2 + 3, "real": 2}
    engine, session = TensorRTEngine(path), onnxruntime.InferenceSession(exported)
    for batch in (3, 1):
        images = np.random.default_rng(batch).integers(0, 256, (batch, SIZE, SIZE, 3), np.uint8)
        found = engine.run({"images": images})
        assert tuple(found) == RESULTS[kind]
        for ours, theirs in zip(found.values(), session.run(list(found), {"images": images}), strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(EngineError, match="exported with post-processing"):
        load_model(path)


def test_an_engine_of_other_results_is_kept_under_another_name(
    build: Build, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(small_results_model("semantic"), exported)
    monkeypatch.setattr(Builder, "samples_nearest", True)
    with pytest.raises(EngineError, match=r"model\.failed\.engine: the engine and ONNX Runtime disagree: .* labels"):
        build(f"{KEYS}.tensorrt.data_type=fp32")
    assert not (tmp_path / KEYS / "model.engine").exists()


def test_8_bits_are_calibrated_with_images_as_the_graph_takes_them(build: Build, exported: Path, photos: Path) -> None:
    onnx.save(small_results_model("panoptic", batch=2), exported)
    calibration = f"{KEYS}.tensorrt.calibration"
    path = build(
        f"{KEYS}.tensorrt.data_type=int8", f"{calibration}.cal_image_dir={photos}", f"{calibration}.cal_batches=0"
    )
    operators = {node.op_type for node in onnx.load_from_string(plan_of(path)["model"]).graph.node}
    assert "DequantizeLinear" in operators
