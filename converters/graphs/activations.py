"""Weights and activations of a graph in 8 bits: `QuantizeLinear` and `DequantizeLinear` before the chosen nodes, with
ranges that ONNX Runtime measures on images.

Ranges are symmetric, sums and biases keep the precision they have: TensorRT refuses biases of 32 bits (the default of
onnxruntime.quantization), and a sum that is rounded too costs accuracy and gains nothing.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from converters.graphs.delicate import delicate_nodes
from converters.graphs.graph import Graph, replace_nodes
from converters.graphs.layers import Layer
from converters.graphs.weights import CLASSES, LARGEST, STORED, weighted_layers, with_8bit_weights
from oneformer_jax.errors import EngineError
from oneformer_jax.writing import write_json

Feed = Mapping[str, np.ndarray]
Ranges = dict[str, float]
"""Largest magnitude of a tensor."""

BINS = {"num_bins": 2048, "num_quantized_bins": 128}
"""Of histograms. ONNX Runtime's default has as many bins as steps: then there is nothing to choose."""


def formats_of_activations(model: onnx.ModelProto) -> set[str]:
    """The 8-bit formats that activations have already; empty for a model that is not quantized, or in its weights
    alone."""
    names = {value: name for name, value in STORED.items()}
    constants = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    zeros = [node.input[2:] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    return {names.get(constants.get(zero[0], 0), "another") if zero else "another" for zero in zeros}


def quantizable_layers(graph: Graph) -> list[Layer]:
    """The products with constant weights, without those that need float32 (see `delicate`)."""
    kept = {name for nodes in delicate_nodes(graph).values() for name in nodes}
    return [layer for layer in weighted_layers(graph) if layer.key not in kept]


def measured_ranges(
    model: onnx.ModelProto,
    feeds: Iterable[Feed],
    *,
    algorithm: str = "minmax",
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> Ranges:
    """Ranges of what enters and leaves all products, over `feeds`: the largest magnitudes, or the best by entropy.

    Raises EngineError where `feeds` has none.
    """
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    method = CalibrationMethod.Entropy if algorithm == "entropy" else CalibrationMethod.MinMax
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):  # it reports on histograms
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        # Nothing but products: what masks let through is minus infinity.
        calibrator = create_calibrator(
            path, list(CLASSES), str(path.with_name("augmented.onnx")), method, extra_options=BINS
        )
        calibrator.execution_providers = list(providers)
        calibrator.create_inference_session()
        count = 0
        for feed in feeds:
            # One by one: histograms otherwise hold the activations of all.
            calibrator.collect_data(_One(feed))
            count += 1
        if not count:
            raise EngineError("there are no images to calibrate with")
        found = calibrator.compute_data().data
    return {
        name: float(max(abs(np.min(data.range_value[0])), abs(np.max(data.range_value[1]))))
        for name, data in found.items()
    }


def cached_ranges(cache: Path, measure: Callable[[], Ranges]) -> Ranges:
    """The ranges in the file `cache` where it exists, else those that `measure()` gives, which are then kept there.

    Raises EngineError: a file that holds something else.
    """
    if cache.is_file():
        try:
            return {str(name): float(value) for name, value in json.loads(cache.read_text())["ranges"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            hint = "remove it and it will be written again"
            raise EngineError(f"not a cache of calibrated ranges: {error}", where=str(cache), hint=hint) from error
    ranges = measure()
    write_json(cache, {"ranges": ranges})
    return ranges


def with_8bit_activations(model: onnx.ModelProto, chosen: Mapping[str, str], ranges: Ranges) -> onnx.ModelProto:
    """The model with inputs and weights of the nodes `chosen` (name -> int8 or fp8_e4m3fn) in 8 bits.

    Raises EngineError: a graph that is quantized already, or `ranges` of another graph.
    """
    if formats_of_activations(model):
        raise EngineError("its activations are already quantized", hint="give the file as export wrote it")
    graph = Graph(with_8bit_weights(model, chosen))
    nodes: list[NodeProto] = []
    made: dict[tuple[str, str], str] = {}
    for node in graph.nodes:
        if node.name in chosen:
            name, dtype = node.input[0], chosen[node.name]
            if name not in ranges:
                hint = "remove the cache of calibrated ranges"
                raise EngineError(f"there is no range of '{name}': the ranges belong to another graph", hint=hint)
            if (name, dtype) not in made:
                nodes += _quantized(graph, name, dtype, ranges[name])
                made[name, dtype] = nodes[-1].output[0]
            node.input[0] = made[name, dtype]
        nodes.append(node)
    replace_nodes(graph.model, nodes)
    onnx.checker.check_model(graph.model)
    return graph.model


def _quantized(graph: Graph, name: str, dtype: str, largest: float) -> list[NodeProto]:
    """Adds the constants of one tensor; the two nodes that yield it as 8 bits hold it."""
    new = f"{name}_{dtype}"
    scale = np.float32(largest / LARGEST[dtype] if largest > 0 else 1.0)
    zero = helper.make_tensor(f"{new}_zero", STORED[dtype], [], [0])
    graph.model.graph.initializer.extend([numpy_helper.from_array(np.array(scale), f"{new}_scale"), zero])
    constants = [f"{new}_scale", f"{new}_zero"]
    return [
        helper.make_node("QuantizeLinear", [name, *constants], [f"{new}_values"], f"quantize_{new}"),
        helper.make_node("DequantizeLinear", [f"{new}_values", *constants], [new], f"dequantize_{new}"),
    ]


class _One:
    """What onnxruntime.quantization reads inputs from: one feed."""

    def __init__(self, feed: Feed) -> None:
        self._feeds = iter([dict(feed)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)
