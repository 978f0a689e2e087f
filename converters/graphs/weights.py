"""Weights and tables of a graph in 8 bits: each becomes an 8-bit constant and a `DequantizeLinear` with a scale per
channel."""

from collections.abc import Mapping
from copy import deepcopy

import ml_dtypes
import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from converters.graphs.delicate import NORMALISATION, SAMPLING, TASK, delicate_nodes
from converters.graphs.graph import Graph, drop_unread, replace_nodes
from converters.graphs.layers import CONVOLUTION, FP8, INT8, LINEAR, TABLE, Layer
from oneformer_jax.errors import SpecError

CLASSES = {"Conv": CONVOLUTION, "Gemm": ("Gemm", *LINEAR), "MatMul": ("MatMul", *LINEAR)}
SMALLEST_TABLE = 1024
"""Entries of a constant that is worth fewer bits."""
FP8_OPSET = 19
"""The first operator set that knows 8-bit floats."""
LARGEST = {INT8: 127.0, FP8: float(ml_dtypes.finfo(ml_dtypes.float8_e4m3fn).max)}
STORED = {INT8: TensorProto.INT8, FP8: TensorProto.FLOAT8E4M3FN}


def weighted_layers(graph: Graph) -> list[Layer]:
    """The products with constant weights. Nodes that `export` named `backbone/norm/MatMul` are `backbone.norm` too, as
    in a checkpoint."""
    layers = []
    for node in graph.nodes:
        if node.op_type in CLASSES and node.input[1] in graph.constants and graph.array(node.input[1]).ndim >= 2:
            module = node.name.rpartition("/")[0].replace("/", ".")
            names = (node.name, module) if module else (node.name,)
            layers.append(Layer(node.name, names, CLASSES[node.op_type]))
    return layers


def tables(graph: Graph) -> list[Layer]:
    """Large constants that are only added: positions, window attention's shift masks and biases, learned queries. At
    640x640 they are a fifth of a Swin-T. Coordinates of samples need all their digits and are not among them."""
    delicate = delicate_nodes(graph)
    exact = {name for reason in (TASK, NORMALISATION, SAMPLING) for name in delicate.get(reason, ())}
    return [
        Layer(name, (name,), (TABLE,))
        for name, tensor in graph.constants.items()
        if tensor.data_type == TensorProto.FLOAT
        and np.prod(tensor.dims) >= SMALLEST_TABLE
        and np.prod(tensor.dims[:-1]) > 1  # a vector, such as a bias, would have a scale for each entry
        and all(node.op_type in ("Add", "Expand") and node.name not in exact for node in graph.consumers.get(name, ()))
    ]


def with_8bit_weights(model: onnx.ModelProto, chosen: Mapping[str, str]) -> onnx.ModelProto:
    """The model with the weights of the nodes and the tables `chosen` (name -> int8 or fp8_e4m3fn) in 8 bits,
    symmetric, a scale per output channel. Raises SpecError: a format that ONNX Runtime and TensorRT do not have."""
    if unknown := set(chosen.values()) - set(STORED):
        hint = f"use {' or '.join(STORED)}"
        raise SpecError(f"{unknown.pop()}: not available for ONNX files", where="quantize.layers", hint=hint)
    graph = Graph(deepcopy(model))
    if FP8 in chosen.values() and graph.opset < FP8_OPSET:
        graph = Graph(onnx.version_converter.convert_version(graph.model, FP8_OPSET))
    nodes: list[NodeProto] = []
    done: dict[tuple[str, int, str], str] = {}
    renamed = {name: f"{name}_{dtype}" for name, dtype in chosen.items() if name in graph.constants}
    for name, new in renamed.items():
        nodes.append(_dequantized(graph, name, graph.array(name).ndim - 1, chosen[name], new))
    for node in graph.nodes:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        if node.name in chosen:
            weight, dtype = node.input[1], chosen[node.name]
            axis = _output_axis(node, graph.array(weight).ndim)
            if (weight, axis, dtype) not in done:
                new = f"{weight}_{dtype}_{axis}"
                nodes.append(_dequantized(graph, weight, axis, dtype, new))
                done[weight, axis, dtype] = new
            node.input[1] = done[weight, axis, dtype]
        nodes.append(node)
    replace_nodes(graph.model, nodes)
    drop_unread(graph.model)
    onnx.checker.check_model(graph.model)
    return graph.model


def scaled(values: np.ndarray, axis: int, largest: float) -> tuple[np.ndarray, np.ndarray]:
    """`values` divided by a scale per index of `axis` so that the largest magnitude becomes `largest`, and the scales.

    Channels that are all zero have the scale 1.
    """
    others = tuple(i for i in range(values.ndim) if i != axis)
    peak = np.abs(values).max(axis=others, keepdims=True)
    smallest = np.finfo(np.float32).tiny  # a scale of 0 would divide by it
    scale = np.where(peak > 0, np.maximum(peak / np.float32(largest), smallest), np.float32(1)).astype(np.float32)
    return values / scale, scale


def _dequantized(graph: Graph, weight: str, axis: int, dtype: str, name: str) -> NodeProto:
    """Adds the constants of one weight; the node that yields its float32 values."""
    values, scale = scaled(graph.array(weight), axis, LARGEST[dtype])
    if dtype == INT8:
        stored = numpy_helper.from_array(np.rint(values).astype(np.int8), f"{name}_values")
    else:
        stored = numpy_helper.from_array(values.astype(ml_dtypes.float8_e4m3fn), f"{name}_values")
    graph.model.graph.initializer.extend([stored, numpy_helper.from_array(scale.ravel(), f"{name}_scale")])
    return helper.make_node("DequantizeLinear", [stored.name, f"{name}_scale"], [name], f"dequantize_{name}", axis=axis)


def _output_axis(node: NodeProto, rank: int) -> int:
    if node.op_type == "Conv":
        return 0
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if transposed else rank - 1
