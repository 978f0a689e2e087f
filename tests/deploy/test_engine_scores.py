"""Engines scored by the evaluator of checkpoints, and the table of `benchmarks.engines`; TensorRT is a fake."""

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from small_graph import SIZE, small_model

from benchmarks.engines import COLUMNS, compare, markdown
from oneformer_jax.app.actions.evaluate import evaluate
from oneformer_jax.app.run.execute import running
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.app.settings.evaluation import evaluation_run
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.drawn_shapes import write_drawn_shapes

SPEC = """
model: {{test: {{semantic_on: true, instance_on: true, panoptic_on: true}}}}
dataset:
  val: {{images: {0}/val/images, annotations: {0}/val/annotations.json, panoptic: {0}/val/panoptic, batch_size: 2}}
  label_map: {0}/label_map.json
gen_trt_engine:
  tensorrt: {{max_batch_size: 2, calibration: {{cal_image_dir: {0}/val/images}}}}
"""


@pytest.fixture
def scored(fakes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The table of an ONNX file and two engines on three pictures: the last batch is not full."""
    write_drawn_shapes(tmp_path, {"val": 3}, size=SIZE, seed=1)
    categories = Categories.from_json(json.loads((tmp_path / "label_map.json").read_text()))
    onnx.save(small_model(categories=categories), tmp_path / "model.onnx")
    (tmp_path / "spec.yaml").write_text(SPEC.format(tmp_path))
    folder = tmp_path / "engines"
    folder.mkdir()
    console = Screen(quiet=True)
    return compare(
        tmp_path / "spec.yaml",
        tmp_path / "model.onnx",
        folder,
        console,
        data_types=("fp32", "int8"),
        overrides=[],
        runs=2,
    )


@pytest.mark.slow
def test_an_engine_scores_what_its_onnx_file_scores(scored: list[dict[str, Any]], tmp_path: Path) -> None:
    onnx_file, fp32, int8 = scored
    assert (onnx_file["model"], fp32["model"], int8["model"]) == ("onnx", "fp32", "int8")
    assert fp32["runs on"].startswith("TensorRT 10.16.1.11 on GPU A")
    for name in ("mIoU", "PQ", "AP"):
        assert fp32[name] == onnx_file[name]
    assert onnx_file["mIoU"] > 0
    spec, keys = tmp_path / "spec.yaml", [f"results_dir={tmp_path}", f"evaluate.trt_engine={tmp_path / 'model.onnx'}"]
    for replaces in (False, True):
        with running("evaluate", spec, keys, Screen(quiet=True)) as (read, run):
            evaluate(evaluation_run(read), run)
        said = (tmp_path / "evaluate" / "status.json").read_text()
        assert ("the scores of an earlier evaluation will be replaced" in said) == replaces
    table = markdown(scored).splitlines()
    assert len(table) == 5
    assert all(line.count("|") == len(COLUMNS) + 1 for line in table)
