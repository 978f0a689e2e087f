"""What every exported graph must be: valid, of standard operators that TensorRT parses, free of control flow."""

from collections import Counter
from pathlib import Path

import onnx

from converters.onnx.tensorrt_support import unsupported


def problems(path: Path) -> list[str]:
    """What is wrong with the graph in a file; empty where all is well."""
    found = []
    try:
        # By its path, since more than 2 GiB cannot be checked otherwise. Shapes are inferred strictly.
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        found.append(f"not valid: {str(error).strip().splitlines()[0]}")
    model = onnx.load(str(path), load_external_data=False)
    if foreign := sorted({entry.domain for entry in model.opset_import} - {""}):
        found.append(f"operator sets that are not standard: {', '.join(foreign)}")
    if refused := unsupported(model):
        found.append(f"TensorRT does not accept: {', '.join(refused)}")
    double = [tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.DOUBLE]
    if double:
        found.append(f"float64 constants: {', '.join(double[:3])}")
    return found


def operators(model: onnx.ModelProto) -> Counter[str]:
    """How many nodes of each operator the graph has, the most frequent first."""
    return Counter(node.op_type for node in model.graph.node)
