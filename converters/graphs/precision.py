"""Number formats of a graph: most of it in float16 or bfloat16, what that would spoil in float32.

TensorRT 11 has no weak typing and no precision of layers: an engine computes what the graph says. Doing it in the graph
serves TensorRT 10 too. Inputs and outputs stay float32.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from fnmatch import fnmatchcase

import ml_dtypes
import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from converters.graphs.delicate import delicate_nodes
from converters.graphs.graph import Graph, drop_unread, replace_nodes
from oneformer_jax.errors import SpecError

FORMATS: dict[str, int] = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
NUMPY: dict[int, np.dtype] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
}
SUFFIX: dict[int, str] = {value: name for name, value in FORMATS.items()}
RANGE = "constants beyond float16"
CHOSEN = "layers_precision"

# Operators whose float32 is not of the computation: scales of quantization, what an attribute or a shape decides.
FIXED = ("QuantizeLinear", "DequantizeLinear", "ConstantOfShape", "Range", "RandomNormal", "EyeLike", "Resize")
# Inputs that are float32 whatever the others are.
FLOAT_INPUTS = {"Resize": (1, 2)}


def with_precision(
    model: onnx.ModelProto, data_type: str, choices: Sequence[str] = ()
) -> tuple[onnx.ModelProto, dict[str, tuple[str, ...]]]:
    """The model with its products and most else in `data_type` (fp32, fp16, bf16), and by reason the nodes in float32.

    `choices` are NAME:FORMAT; NAME is the name or operator of nodes and may hold * and ?; later ones win, and all win
    over the reasons. Raises SpecError for a choice that is malformed or names nothing.
    """
    graph = Graph(deepcopy(model))
    reasons = delicate_nodes(graph) if data_type != "fp32" else {}
    formats: dict[str, int] = {node.name: FORMATS[data_type] for node in graph.nodes}
    formats |= {name: TensorProto.FLOAT for names in reasons.values() for name in names}
    chosen = _chosen(graph, choices)
    formats |= chosen
    for node in graph.nodes:
        if node.op_type in FIXED:
            formats[node.name] = TensorProto.FLOAT
    beyond = [
        node.name for node in graph.nodes if formats[node.name] == TensorProto.FLOAT16 and _overflows(graph, node)
    ]
    formats |= dict.fromkeys(beyond, TensorProto.FLOAT)
    kept = {
        reason: tuple(name for name in names if formats[name] == TensorProto.FLOAT)
        for reason, names in (reasons | {RANGE: tuple(beyond)}).items()
    }
    kept[CHOSEN] = tuple(name for name, value in chosen.items() if value == TensorProto.FLOAT)
    if set(formats.values()) - {TensorProto.FLOAT}:
        _Rewriter(graph, formats).run()
    onnx.checker.check_model(graph.model)
    return graph.model, {reason: names for reason, names in kept.items() if names}


def _chosen(graph: Graph, choices: Sequence[str]) -> dict[str, int]:
    """Node name -> format, of what `layers_precision` says."""
    found: dict[str, int] = {}
    for choice in choices:
        pattern, _, name = choice.rpartition(":")
        where = f"layers_precision: {choice}"
        if not pattern or name.lower() not in FORMATS:
            hint = "whole layers in int8 or fp8: oneformer quantize with quantize.layers"
            raise SpecError(f"expected NAME:FORMAT, FORMAT one of {', '.join(FORMATS)}", where=where, hint=hint)
        matched = [n.name for n in graph.nodes if fnmatchcase(n.name, pattern) or fnmatchcase(n.op_type, pattern)]
        if not matched:
            operators = ", ".join(sorted({node.op_type for node in graph.nodes})[:12])
            raise SpecError("no node has this name or operator", where=where, hint=f"operators there: {operators}, ...")
        found |= dict.fromkeys(matched, FORMATS[name.lower()])
    return found


def _overflows(graph: Graph, node: NodeProto) -> bool:
    limit = np.finfo(np.float16).max
    arrays = (graph.array(name) for name in node.input if name in graph.constants)
    return any(array.dtype == np.float32 and array.size and np.abs(array).max() > limit for array in arrays)


class _Rewriter:
    """Gives every node the format decided for it, with casts where formats meet, each made once."""

    def __init__(self, graph: Graph, formats: Mapping[str, int]) -> None:
        self.graph, self.formats = graph, formats
        self.types = graph.element_types()
        self.outputs = {value.name for value in graph.model.graph.output}
        self.actual: dict[str, int] = dict.fromkeys(graph.inputs, TensorProto.FLOAT)  # of the float tensors so far
        self.nodes: list[NodeProto] = []
        self.made: set[str] = set()

    def run(self) -> None:
        for node in self.graph.nodes:
            wanted = self.formats[node.name]
            for position, name in enumerate(node.input):
                if self.types.get(name) == TensorProto.FLOAT:
                    fixed = position in FLOAT_INPUTS.get(node.op_type, ())
                    node.input[position] = self._as(name, TensorProto.FLOAT if fixed else wanted)
            self.nodes.append(node)
            self._outputs(node, wanted)
        replace_nodes(self.graph.model, self.nodes)
        drop_unread(self.graph.model)

    def _as(self, name: str, wanted: int) -> str:
        """The tensor in a format: itself, a converted constant, or a cast."""
        constant = name in self.graph.constants
        if wanted == (TensorProto.FLOAT if constant else self.actual[name]):
            return name
        new = f"{name}_{SUFFIX[wanted]}"
        if new not in self.made:
            self.made.add(new)
            if constant:
                values = self.graph.array(name).astype(NUMPY[wanted])
                self.graph.model.graph.initializer.append(numpy_helper.from_array(values, new))
            else:
                self.nodes.append(helper.make_node("Cast", [name], [new], f"cast_{new}", to=wanted))
                self.actual[new] = wanted
        return new

    def _outputs(self, node: NodeProto, produced: int) -> None:
        for position, name in enumerate(node.output):
            if self.types.get(name) != TensorProto.FLOAT:
                continue
            for attribute in node.attribute:
                if node.op_type == "Cast" and attribute.name == "to":
                    attribute.i = produced
            self.actual[name] = produced
            if name in self.outputs and produced != TensorProto.FLOAT:
                inner = f"{name}_{SUFFIX[produced]}"
                node.output[position] = inner
                self.nodes.append(helper.make_node("Cast", [inner], [name], f"cast_{name}", to=TensorProto.FLOAT))
                self.actual |= {inner: produced, name: TensorProto.FLOAT}
