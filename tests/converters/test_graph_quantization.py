"""Graphs in 8 bits: what is stored, how far results move, and which layers are chosen."""

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, numpy_helper
from small_graph import feeds, small_model

from converters.graphs import activations as static
from converters.graphs import weights
from converters.graphs.activations import (
    formats_of_activations,
    measured_ranges,
    quantizable_layers,
    with_8bit_activations,
)
from converters.graphs.graph import Graph
from converters.graphs.layers import FP8, INT8, Layer, chosen_layers
from converters.graphs.weights import scaled, tables, weighted_layers, with_8bit_weights
from oneformer_jax.errors import EngineError, SpecError

LAYERS = [
    Layer("a", ("stage.first",), ("Linear", "Dense")),
    Layer("b", ("stage.second",), ("Conv2d", "Conv")),
    Layer("c", ("head",), ("Linear", "Dense")),
]


def outputs(model: onnx.ModelProto) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return [session.run(["pred_logits"], feed)[0] for feed in feeds()]


def distance(model: onnx.ModelProto) -> float:
    """Mean difference of the logits to those in float32, relative to their spread."""
    ours, theirs = np.concatenate(outputs(model)), np.concatenate(outputs(small_model()))
    return float(np.abs(ours - theirs).mean() / theirs.std())


def dequantized(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The weights that `DequantizeLinear` yields, by the ONNX definition: values times the scale along the axis."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            values, scale = constants[node.input[0]].astype(np.float32), constants[node.input[1]]
            axis = node.attribute[0].i
            found[node.output[0]] = values * scale.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    return found


@given(arrays.arrays(np.float32, (4, 3), elements=st.floats(-1e3, 1e3, width=32)), st.sampled_from([0, 1]))
def test_scales_bring_every_channel_to_the_largest_value(values: np.ndarray, axis: int) -> None:
    result, scale = scaled(values, axis, 127.0)
    assert np.abs(result).max() <= 127.001
    np.testing.assert_allclose(
        np.rint(result) * scale, values, atol=float(np.abs(values).max()) / 127 / 2 * 1.001 + 1e-6
    )
    peaks = np.abs(result).max(axis=1 - axis)
    assert ((peaks > 126.99) | (np.abs(values).max(axis=1 - axis) < 128 * np.finfo(np.float32).tiny)).all()


def test_weights_in_8_bits_are_within_half_a_step_per_output_channel() -> None:
    model = small_model()
    chosen = {layer.key: INT8 for layer in weighted_layers(Graph(model))}
    result = with_8bit_weights(model, chosen)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = dequantized(result)
    assert len(found) == 7
    for name, values in found.items():
        original, axis = weights[name.rpartition("_int8")[0]], int(name[-1])
        assert axis == (0 if original.ndim == 4 else 1)  # convolutions have outputs first, matrices last
        step = np.abs(original).max(axis=tuple(i for i in range(original.ndim) if i != axis), keepdims=True) / 127
        assert (np.abs(values - original) <= 0.5001 * step).all()
    assert distance(result) < 0.1
    smallest = with_8bit_weights(model, chosen | {layer.key: INT8 for layer in tables(Graph(model))})
    assert len(smallest.SerializeToString()) < 0.45 * len(model.SerializeToString())


def test_tables_that_are_added_take_8_bits() -> None:
    model = small_model()
    found = tables(Graph(model))
    assert [(layer.key, layer.classes) for layer in found] == [("positions", ("Table",))]
    result = with_8bit_weights(model, {"positions": INT8})
    (values,) = dequantized(result).values()
    original = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "positions")
    assert (np.abs(values - original) <= np.abs(original).max(axis=(0, 1)) / 254 * 1.001).all()
    assert distance(result) < 0.05


def test_a_vector_is_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have a scale for each entry, and take more bytes than before."""
    monkeypatch.setattr(weights, "SMALLEST_TABLE", 1)
    model = small_model()
    add = next(node for node in model.graph.node if "positions" in node.input)
    add.input[1] = "bias"
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 1, 32), np.float32), "bias"))
    onnx.checker.check_model(model, full_check=True)
    assert "bias" not in {layer.key for layer in tables(Graph(model))}


def test_coordinates_of_samples_keep_their_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SMALLEST_TABLE", 1)
    assert [layer.key for layer in tables(Graph(small_model()))] == ["positions"]


def test_quantizing_again_finds_the_same_values() -> None:
    """So a checkpoint in 8 bits and its exported graph in 8 bits are the same model."""
    model = small_model()
    chosen = {layer.key: INT8 for layer in weighted_layers(Graph(model))}
    once = with_8bit_weights(model, chosen)
    restored = onnx.ModelProto()
    restored.CopyFrom(model)
    values = {name.rpartition("_int8")[0]: array for name, array in dequantized(once).items()}
    for tensor in restored.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    again = with_8bit_weights(restored, chosen)
    first, second = (
        {t.name: numpy_helper.to_array(t) for t in result.graph.initializer if t.data_type == TensorProto.INT8}
        for result in (once, again)
    )
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def test_8_bit_floats_are_stored_and_run() -> None:
    model = small_model()
    result = with_8bit_weights(model, {layer.key: FP8 for layer in weighted_layers(Graph(model))})
    stored = [tensor for tensor in result.graph.initializer if tensor.data_type == TensorProto.FLOAT8E4M3FN]
    assert len(stored) == 7
    assert all(np.abs(numpy_helper.to_array(t).astype(np.float32)).max() == 448 for t in stored)
    assert float(ml_dtypes.finfo(ml_dtypes.float8_e4m3fn).max) == 448
    assert distance(result) < 0.25
    with pytest.raises(SpecError, match="fp8_e5m2: not available for ONNX files"):
        with_8bit_weights(model, {"Conv_0": "fp8_e5m2"})


@pytest.mark.parametrize("dtype", [INT8, FP8])
def test_activations_in_8_bits(dtype: str) -> None:
    model = small_model()
    chosen = {layer.key: dtype for layer in quantizable_layers(Graph(model))}
    assert len(chosen) == 4  # not the task vector's two, not the offsets'
    ranges = measured_ranges(model, feeds())
    assert ranges["images"] == pytest.approx(max(np.abs(feed["images"]).max() for feed in feeds()))
    result = with_8bit_activations(model, chosen, ranges)
    assert formats_of_activations(result) == {dtype}
    assert not formats_of_activations(model)
    onnx.shape_inference.infer_shapes(result, strict_mode=True)
    biases = [t for t in result.graph.initializer if t.data_type == TensorProto.INT32]
    assert not biases
    assert distance(result) < (0.1 if dtype == INT8 else 0.25)
    scale = next(t for t in result.graph.initializer if t.name == f"images_{dtype}_scale")
    assert float(numpy_helper.to_array(scale)) == pytest.approx(ranges["images"] / (127 if dtype == INT8 else 448))
    with pytest.raises(EngineError, match="already quantized"):
        with_8bit_activations(result, chosen, ranges)
    with pytest.raises(EngineError, match="ranges belong to another graph"):
        with_8bit_activations(model, chosen, {})


@pytest.mark.slow
def test_entropy_cuts_off_what_is_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "BINS", {"num_bins": 512, "num_quantized_bins": 128})  # quicker
    model = small_model()
    rare = feeds(2, batch=4)
    rare[0]["images"][0, 0, 0, 0] = 40.0
    assert measured_ranges(model, rare)["images"] == 40.0
    assert measured_ranges(model, rare, algorithm="entropy")["images"] < 20
    with pytest.raises(EngineError, match="no images to calibrate with"):
        measured_ranges(model, [])


@pytest.mark.parametrize(
    ("rules", "skip", "expected"),
    [
        ([], [], {"a": "int8", "b": "int8", "c": "int8"}),
        ([{"module_name": "stage.*"}], [], {"a": "int8", "b": "int8"}),
        ([{"module_name": "Linear", "weights": {"dtype": "float8_e4m3fn"}}], [], {"a": FP8, "c": FP8}),
        ([{"module_name": "*"}, {"module_name": "head", "weights": {"dtype": "native"}}], [], {"a": INT8, "b": INT8}),
        ([{"module_name": "Conv2d", "weights": {"dtype": "fp8_e5m2"}}], [], {"b": "fp8_e5m2"}),
        ([], ["stage.*"], {"c": "int8"}),
        ([], ["Conv"], {"a": "int8", "c": "int8"}),
    ],
)
def test_layers_are_chosen_by_name_or_class(rules: list[Any], skip: list[str], expected: dict[str, str]) -> None:
    assert chosen_layers(LAYERS, rules, skip, "weight_only_ptq") == expected


@pytest.mark.tao(29)
@pytest.mark.parametrize(
    ("rules", "skip", "message"),
    [
        ([{"module_name": "stage"}], [], "'stage' names none of the 3 layers"),
        ([{"module_name": "linear"}], [], "'linear' names none"),  # case counts
        ([], ["nothing"], "skip_names: 'nothing' names none"),
        ([], ["*"], "leaves nothing to quantize"),
        ([{"module_name": "*", "weights": {"dtype": "native"}}], [], "leaves nothing to quantize"),
        ([{"weights": {"dtype": "int8"}}], [], r"layers\[0\]: no module_name"),
        ([{"module_name": "*", "wieghts": {}}], [], "wieghts: unknown key"),
        ([{"module_name": "*", "weights": {"dtype": "int4"}}], [], "'int4' is not a number format"),
        ([{"module_name": "*", "weights": {"dtype": "int8", "quant_axis": 1}}], [], "quant_axis: not available"),
        ([{"module_name": "*", "weights": "int8"}], [], "expected {dtype: ...}"),
        ([{"module_name": "*", "activations": {"dtype": "int8"}}], [], "leaves activations as they are"),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(rules: list[Any], skip: list[str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        chosen_layers(LAYERS, rules, skip, "weight_only_ptq")


def test_static_rules_have_one_format_for_weights_and_activations() -> None:
    rule = {"module_name": "*", "weights": {"dtype": "int8"}, "activations": {"dtype": "fp8_e4m3fn"}}
    with pytest.raises(SpecError, match="is fp8_e4m3fn, weights are int8"):
        chosen_layers(LAYERS, [rule], [], "static_ptq")
    assert chosen_layers(LAYERS, [rule | {"activations": {"dtype": "int8"}}], [], "static_ptq")["a"] == INT8
