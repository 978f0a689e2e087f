"""The restrictions of TensorRT's parser, case by case; graphs of every number format keep to them."""

import onnx
import pytest
from onnx import parser
from small_graph import feeds, small_model

from converters.graphs.activations import measured_ranges, quantizable_layers, with_8bit_activations
from converters.graphs.graph import Graph
from converters.graphs.layers import FP8, INT8
from converters.graphs.precision import with_precision
from converters.graphs.weights import tables, weighted_layers, with_8bit_weights
from converters.onnx.tensorrt_support import unsupported

REFUSED = {
    "NonZero is not among": "(float[4] x) => (int64[1,N] y) { y = NonZero (x) }",
    "GridSample of DOUBLE": "(double[1,1,4,4] x, double[1,2,2,2] g) => (double[1,1,2,2] y) { y = GridSample (x, g) }",
    "GridSample of BFLOAT16": "(bfloat16[1,1,4,4] x, bfloat16[1,2,2,2] g) => (bfloat16[1,1,2,2] y)"
    " { y = GridSample (x, g) }",
    "GridSample with an input of 5 axes": "(float[1,1,4,4,4] x, float[1,2,2,2,3] g) => (float[1,1,2,2,2] y)"
    " { y = GridSample (x, g) }",
    "ReduceSum with computed axes": "(float[4,4] x, int64[1] axes) => (float[N,M] y) { y = ReduceSum (x, axes) }",
    "LayerNormalization with a second output": "(float[4,4] x, float[4] s) => (float[4,4] y, float[4,1] mean)"
    " { y, mean = LayerNormalization <axis = -1> (x, s) }",
    "DequantizeLinear with a zero point that is not 0": "(int8[4] x) => (float[4] y)"
    " <float scale = {1.0}, int8 zero = {3}> { y = DequantizeLinear (x, scale, zero) }",
    "TopK with unsorted results": "(float[9] x) => (float[2] y, int64[2] i) <int64[1] k = {2}>"
    " { y, i = TopK <sorted = 0> (x, k) }",
    "TopK with a K that is not below 3840": "(float[9000] x) => (float[N] y, int64[N] i) <int64[1] k = {3840}>"
    " { y, i = TopK (x, k) }",
    "Cast with UINT8 that is no input": "(float[4] x) => (float[4] y) { b = Cast <to = 2> (x) y = Cast <to = 1> (b) }",
    "MatMul of INT32": "(int32[2,2] x) => (int32[2,2] y) { y = MatMul (x, x) }",
}


def graph(text: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g {text}')


@pytest.mark.parametrize("reason", REFUSED)
def test_what_the_parser_refuses_is_found(reason: str) -> None:
    (found,) = unsupported(graph(REFUSED[reason]))
    assert found.startswith(reason)


def test_bytes_may_come_from_outside() -> None:
    assert unsupported(graph("(uint8[4] x) => (float[4] y) { y = Cast <to = 1> (x) }")) == []


@pytest.mark.parametrize("batch", [-1, 2])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_narrowed_graphs_are_taken(precision: str, batch: int) -> None:
    assert unsupported(with_precision(small_model(batch), precision)[0]) == []


@pytest.mark.parametrize("dtype", [INT8, FP8])
def test_quantized_graphs_are_taken(dtype: str) -> None:
    model = small_model()
    weights = {layer.key: dtype for layer in weighted_layers(Graph(model)) + tables(Graph(model))}
    assert unsupported(with_8bit_weights(model, weights)) == []
    chosen = {layer.key: dtype for layer in quantizable_layers(Graph(model))}
    assert unsupported(with_8bit_activations(model, chosen, measured_ranges(model, feeds()))) == []
