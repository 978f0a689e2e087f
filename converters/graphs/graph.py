"""An ONNX model with the look-ups that rewriting it needs."""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from oneformer_jax.errors import EngineError

PRODUCTS = ("MatMul", "Gemm", "Einsum", "Conv", "ConvTranspose")
"""Operators that multiply and sum: nearly all of the time of a graph, and the only ones worth fewer bits."""


class Graph:
    """A model whose nodes all have a name of their own and whose constants are initializers.

    The model is changed in place; look-ups are made once, so make a new Graph after rewriting nodes.
    Raises EngineError for a model with nested graphs (If, Loop), which no export of this project has.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self._name_nodes()
        self._lift_constants()

    @property
    def nodes(self) -> list[NodeProto]:
        """The nodes, each behind those that it reads from."""
        return list(self.model.graph.node)

    @property
    def opset(self) -> int:
        """The version of the standard operators."""
        return next(entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx"))

    @cached_property
    def constants(self) -> dict[str, TensorProto]:
        """Initializers by name."""
        return {tensor.name: tensor for tensor in self.model.graph.initializer}

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of what a caller feeds."""
        return tuple(value.name for value in self.model.graph.input if value.name not in self.constants)

    @cached_property
    def producers(self) -> dict[str, NodeProto]:
        """The node that computes a tensor."""
        return {name: node for node in self.model.graph.node for name in node.output if name}

    @cached_property
    def consumers(self) -> dict[str, list[NodeProto]]:
        """The nodes that read a tensor."""
        found: dict[str, list[NodeProto]] = {}
        for node in self.model.graph.node:
            for name in dict.fromkeys(node.input):
                found.setdefault(name, []).append(node)
        return found

    def before(self, node: NodeProto, inputs: Iterable[int] | None = None) -> Iterator[NodeProto]:
        """The nodes that compute the inputs of `node`, or those of some positions."""
        names = node.input if inputs is None else [node.input[i] for i in inputs if i < len(node.input)]
        return (self.producers[name] for name in names if name in self.producers)

    def after(self, node: NodeProto) -> Iterator[NodeProto]:
        """The nodes that read an output of `node`."""
        return (reader for name in node.output for reader in self.consumers.get(name, ()))

    def array(self, name: str) -> np.ndarray:
        """The values of an initializer."""
        return numpy_helper.to_array(self.constants[name])

    def element_types(self) -> dict[str, int]:
        """The ONNX element type of every tensor, inferred."""
        graph = onnx.shape_inference.infer_shapes(self.model).graph
        values = [*graph.input, *graph.value_info, *graph.output]
        types = {value.name: value.type.tensor_type.elem_type for value in values}
        return types | {name: tensor.data_type for name, tensor in self.constants.items()}

    def _name_nodes(self) -> None:
        taken: set[str] = set()
        for index, node in enumerate(self.model.graph.node):
            if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
                raise EngineError(f"the ONNX graph has a nested graph (node {node.name or index}, {node.op_type})")
            if not node.name or node.name in taken:
                node.name = f"{node.op_type}_{index}" if f"{node.op_type}_{index}" not in taken else f"node_{index}"
            taken.add(node.name)

    def _lift_constants(self) -> None:
        kept = []
        for node in self.model.graph.node:
            value = next((a.t for a in node.attribute if a.name == "value"), None)
            if node.op_type == "Constant" and value is not None:
                tensor = self.model.graph.initializer.add()
                tensor.CopyFrom(value)
                tensor.name = node.output[0]
            else:
                kept.append(node)
        replace_nodes(self.model, kept)


def replace_nodes(model: onnx.ModelProto, nodes: list[NodeProto]) -> None:
    """Puts `nodes` in the place of those of `model`, whose inferred types and shapes are forgotten."""
    copies = deepcopy(nodes)
    del model.graph.node[:]
    model.graph.node.extend(copies)
    del model.graph.value_info[:]


def drop_unread(model: onnx.ModelProto) -> None:
    """Removes initializers that nothing reads."""
    read = {name for node in model.graph.node for name in node.input} | {v.name for v in model.graph.output}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    if len(kept) < len(model.graph.initializer):
        copies = deepcopy(kept)
        del model.graph.initializer[:]
        model.graph.initializer.extend(copies)


def read_graph(path: Path) -> onnx.ModelProto:
    """An ONNX file with its external data.

    Raises EngineError: missing, or no ONNX file.
    """
    if not path.is_file():
        raise EngineError("no such file", where=str(path), hint="write one: oneformer export")
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf, the checker and the reader of external data raise a kind each
        detail = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise EngineError(f"not a usable ONNX file: {detail}", where=str(path)) from error
    return model
