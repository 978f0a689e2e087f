"""What TensorRT's ONNX parser takes: operators, types of their data, and restrictions.

A part of the support matrix of TensorRT 10.15 (docs/operators.md of https://github.com/onnx/onnx-tensorrt), those
operators that exported, quantized and narrowed graphs are made of. Whoever adds an operator reads its row there.
"""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
NUMBERS = FLOATS | {TensorProto.INT32, TensorProto.INT64}
ANY = NUMBERS | {TensorProto.BOOL}
BOOLEANS = frozenset({TensorProto.BOOL})

OPERATORS: dict[str, frozenset[int]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Max", "Min", "Relu"), NUMBERS),
    **dict.fromkeys(("Sqrt", "Erf", "Floor", "Sigmoid", "Softmax", "Tanh"), FLOATS),
    "Gelu": NUMBERS,
    **dict.fromkeys(("MatMul", "Gemm", "Conv", "LayerNormalization"), FLOATS),
    "GridSample": frozenset({TensorProto.FLOAT, TensorProto.FLOAT16}),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ArgMax", "TopK"), NUMBERS),
    **dict.fromkeys(("Reshape", "Transpose", "Concat", "Split", "Slice", "Squeeze", "Unsqueeze"), ANY),
    "Pad": NUMBERS,
    **dict.fromkeys(("Expand", "Shape", "Gather", "GatherElements", "GatherND", "Identity"), ANY),
    "Cast": ANY | {TensorProto.UINT8},
    **dict.fromkeys(("Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Equal"), NUMBERS),
    **dict.fromkeys(("Not", "And", "Or"), BOOLEANS),
    "Where": BOOLEANS,  # the condition
    "QuantizeLinear": FLOATS,
    "DequantizeLinear": frozenset({TensorProto.INT8, TensorProto.INT4, TensorProto.FLOAT8E4M3FN}),
}
"""By name the types that the first input may have."""
LARGEST_K = 3840  # exclusive


class _Graph:
    """What is known of each value of a graph without running it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        self.constants = {tensor.name: tensor for tensor in inferred.initializer}
        self.inputs = {value.name for value in inferred.input}
        self.types, self.ranks = {name: tensor.data_type for name, tensor in self.constants.items()}, {}
        for value in (*inferred.input, *inferred.output, *inferred.value_info):
            tensor = value.type.tensor_type
            self.types[value.name] = tensor.elem_type
            if tensor.HasField("shape"):
                self.ranks[value.name] = len(tensor.shape.dim)

    def numbers(self, name: str) -> np.ndarray:
        return numpy_helper.to_array(self.constants[name])


def _constant_second_input(node: onnx.NodeProto, graph: _Graph) -> str:
    given = [name for name in node.input[1:2] if name]
    return "" if all(name in graph.constants for name in given) else "computed axes"


def _four_axes(node: onnx.NodeProto, graph: _Graph) -> str:
    rank = graph.ranks.get(node.input[0])
    return "" if rank == 4 else f"an input of {rank} axes, not 4"


def _one_output(node: onnx.NodeProto, graph: _Graph) -> str:
    return "a second output" if any(node.output[1:]) else ""


def _zero_point_of_zero(node: onnx.NodeProto, graph: _Graph) -> str:
    given = [name for name in node.input[2:3] if name]
    if all(name in graph.constants and not np.any(graph.numbers(name).astype(np.float32)) for name in given):
        return ""
    return "a zero point that is not 0"


def _few_and_sorted(node: onnx.NodeProto, graph: _Graph) -> str:
    if any(fact.name == "sorted" and fact.i != 1 for fact in node.attribute):
        return "unsorted results"
    k = node.input[1]
    return "" if k in graph.constants and graph.numbers(k).item() < LARGEST_K else f"a K that is not below {LARGEST_K}"


def _bytes_from_outside(node: onnx.NodeProto, graph: _Graph) -> str:
    (name,) = node.input
    inner = graph.types.get(name) == TensorProto.UINT8 and name not in graph.inputs
    return "UINT8 that is no input of the graph" if inner else ""


RESTRICTIONS: dict[str, Callable[[onnx.NodeProto, _Graph], str]] = {
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"), _constant_second_input),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), _constant_second_input),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _zero_point_of_zero),
    "GridSample": _four_axes,
    "LayerNormalization": _one_output,
    "TopK": _few_and_sorted,
    "Cast": _bytes_from_outside,
}


def unsupported(model: onnx.ModelProto) -> list[str]:
    """Each kind of node that TensorRT would refuse with the reason, once; the weights need not be loaded."""
    graph = _Graph(model)
    found: dict[str, None] = {}  # in order
    for node in model.graph.node:
        if node.op_type not in OPERATORS:
            found[f"{node.op_type} is not among the operators of tensorrt_support.py"] = None
            continue
        kind = graph.types.get(node.input[0], TensorProto.UNDEFINED)
        if kind not in OPERATORS[node.op_type]:
            found[f"{node.op_type} of {TensorProto.DataType.Name(kind)}"] = None
        if (rule := RESTRICTIONS.get(node.op_type)) and (reason := rule(node, graph)):
            found[f"{node.op_type} with {reason}"] = None
    return list(found)
