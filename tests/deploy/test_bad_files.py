"""Files that are no exported model, and metadata that says too little."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.errors import EngineError
from oneformer_jax.predict.metadata import KEY, Metadata, read_sidecar, sidecar, write_sidecar
from oneformer_jax.predict.predictor import load_model

METADATA = Metadata(
    categories=Categories.from_json([{"id": 1, "name": "road", "isthing": 0}, {"id": 2, "name": "car"}]),
    num_classes=3,
    num_queries=5,
    image_size=(64, 96),
    batch_size=4,
    pixel_mean=(1.0, 2.0, 3.0),
    pixel_std=(4.0, 5.0, 6.0),
    task_pad_id=49407,
    task_tokens=((1, 2), (3, 4), (5, 6)),
    checkpoint="/runs/best, step 7",
)


def write_model(path: Path, entry: str | None) -> Path:
    """A valid ONNX file that copies its input."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    if entry is not None:
        helper.set_model_props(model, {KEY: entry})
    onnx.save(model, str(path))
    return path


def test_what_is_no_exported_model_is_told_by_name(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\x08\x07not a model")
    weights = tmp_path / "model.pth"
    weights.write_bytes(b"")
    lacking = METADATA.to_json()
    del lacking["task_tokens"]
    cases = {
        tmp_path / "missing.onnx": "no such file",
        damaged: "ONNX Runtime cannot open it",
        write_model(tmp_path / "foreign.onnx", None): "not exported by this project",
        write_model(tmp_path / "text.onnx", "{"): "not valid JSON",
        write_model(tmp_path / "lacking.onnx", json.dumps(lacking)): "task_tokens is missing",
        write_model(tmp_path / "other.onnx", json.dumps(METADATA.to_json())): "its inputs and outputs are",
        weights: "not the name of an exported model",
    }
    for path, words in cases.items():
        with pytest.raises(EngineError) as caught:
            load_model(path)
        assert words in str(caught.value), path
        assert str(path) in str(caught.value)


def test_metadata_survives_a_file_and_outputs_without_a_category_are_stuff(tmp_path: Path) -> None:
    engine = tmp_path / "model.engine"
    assert write_sidecar(engine, METADATA, builder="10.3") == sidecar(engine) == tmp_path / "model.engine.json"
    read, content = read_sidecar(engine)
    assert read == METADATA
    assert content["builder"] == "10.3"
    np.testing.assert_array_equal(read.is_thing, [False, True, False])
    np.testing.assert_array_equal(read.tokens_of("panoptic"), [5, 6])
    with pytest.raises(EngineError, match="keep the two together"):
        read_sidecar(tmp_path / "other.engine")
