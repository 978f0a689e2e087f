"""Files that are no exported model, and metadata that says too little."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_graph import small_model

from converters.graphs.graph import read_graph
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.errors import EngineError, OneFormerError
from oneformer_jax.predict.exported import open_session
from oneformer_jax.predict.metadata import KEY, Metadata, metadata_of, read_sidecar, sidecar, write_sidecar
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


@pytest.mark.parametrize("change", [{"num_classes": 10**12}, {"num_queries": 7}, {"image_size": [64, 64]}])
def test_metadata_of_another_graph_is_refused(change: dict, tmp_path: Path) -> None:
    model = small_model()
    about = json.loads(model.metadata_props[0].value) | change
    helper.set_model_props(model, {KEY: json.dumps(about)})
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(EngineError, match="its metadata is of another graph: of an image, pred_"):
        load_model(tmp_path / "model.onnx")


def test_weights_of_other_code_bases_name_the_action_that_converts_them(tmp_path: Path) -> None:
    """A file does not name its classes."""
    weights = tmp_path / "model.pth"
    weights.write_bytes(b"")
    with pytest.raises(OneFormerError) as caught:
        load_model(weights)
    assert f"`convert {weights} FOLDER` makes a checkpoint" in str(caught.value)
    assert caught.value.where == str(weights)


def test_a_folder_of_huggingface_without_weights_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(OneFormerError, match=r"model\.safetensors") as caught:
        load_model(tmp_path)
    assert str(tmp_path) in str(caught.value)


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pixel_std": [0.0, 1.0, 1.0]}, "pixel_std is [0.0, 1.0, 1.0]"),
        ({"pixel_std": [1e-60, 1.0, 1.0]}, "pixel_std is"),  # 0 in float32
        ({"pixel_mean": [1e39, 1.0, 1.0]}, "pixel_mean is"),
        ({"pixel_std": [1.0, 1.0]}, "expected a list of 3: a number, a number, a number"),
        ({"image_size": "64x96"}, "image_size is '64x96' (text), expected a list of 2"),
        ({"image_size": [64, -1]}, "image_size is [64, -1]"),
        ({"num_classes": 1}, "num_classes is 1"),
        ({"num_classes": True}, "num_classes is True (true or false), expected a whole number"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"task_tokens": [[1], [2, 3], [4]]}, "task_tokens is"),
        ({"postprocess": "all"}, "expected one of none, semantic, instance, panoptic"),
        ({"categories": {"0": "a"}}, "the categories must be a JSON array"),
        ({"categories": [{"id": 1, "name": None}]}, "name must be a text, not None"),
        ({"checkpoint": ["x"]}, "checkpoint is ['x'] (a list), expected text"),
    ],
)
def test_metadata_of_another_kind_is_named(change: dict, words: str) -> None:
    content = METADATA.to_json() | change
    with pytest.raises(EngineError) as raised:
        Metadata.from_json(content, where="m.onnx")
    assert words in str(raised.value)
    assert "m.onnx" in str(raised.value)


@pytest.mark.parametrize("text", ["5", "[]", "null", '"x"', "[" * 100_000, '{"a": NaN}'])
def test_metadata_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(EngineError):
        metadata_of({KEY: text}, where="m.onnx")


def test_metadata_of_a_newer_version_is_read() -> None:
    assert Metadata.from_json(METADATA.to_json() | {"carbon": 3}, where="") == METADATA


@pytest.mark.parametrize("place", ["absolute", "above", "link"])
def test_weights_outside_the_folder_of_an_onnx_file_are_not_read(place: str, tmp_path: Path) -> None:
    folder, secret = tmp_path / "model", tmp_path / "secret.bin"
    folder.mkdir()
    secret.write_bytes(np.ones(2, np.float32).tobytes())
    (folder / "link.bin").symlink_to(secret)
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2], np.zeros(2, np.float32).tobytes(), raw=True)
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    location = {"absolute": str(secret), "above": "../secret.bin", "link": "link.bin"}[place]
    weights.external_data.add(key="location", value=location)
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", value[:1], value[1:], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    for opened in (open_session, read_graph):
        with pytest.raises(EngineError):
            opened(folder / "model.onnx")


def test_an_onnx_runtime_that_reads_any_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "__version__", "1.20.1")
    with pytest.raises(EngineError, match=r"ONNX Runtime 1\.20 reads any file.*\n.*1\.32"):
        open_session(write_model(tmp_path / "m.onnx", None))
