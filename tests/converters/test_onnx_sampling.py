"""Deformable attention in ONNX: both ways of writing it, beside the model's own, in ONNX Runtime."""

from typing import get_args

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from jax2onnx import to_onnx

from converters.graphs.delicate import SAMPLING, delicate_nodes
from converters.graphs.graph import Graph
from converters.graphs.precision import with_precision
from converters.onnx.operators import operations
from converters.onnx.settings import Sampling
from converters.onnx.tensorrt_support import unsupported
from oneformer_jax.models.deformable_attention import Shapes, weighted_gathers

SHAPES = ((5, 7), (3, 4), (1, 1))
B, Q, HEADS, WIDTH, POINTS = 2, 6, 2, 4, 3
LARGE = ((100, 160),)
NAMES = ("value", "locations", "weights")

pytestmark = pytest.mark.slow


def graph_of(sampling: Sampling, shapes: Shapes = SHAPES) -> onnx.ModelProto:
    sample = operations(sampling).deformable_attention
    sizes = sizes_of(shapes)
    return to_onnx(
        lambda value, locations, weights: sample(value, shapes, locations, weights),
        [(batch, *size) for batch, size in zip(("B",) * 3, sizes, strict=True)],
        model_name="sampling",
        opset=17,
        input_names=list(NAMES),
    )


def sizes_of(shapes: Shapes) -> tuple[tuple[int, ...], ...]:
    """Of values, locations and weights, without the batch."""
    pixels = sum(h * w for h, w in shapes)
    return (pixels, HEADS, WIDTH), (Q, HEADS, len(shapes), POINTS, 2), (Q, HEADS, len(shapes), POINTS)


def inputs(shapes: Shapes = SHAPES) -> list[np.ndarray]:
    """Locations inside, on the edges, in the corners, and far outside."""
    rng = np.random.default_rng(0)
    value, locations, weights = (rng.normal(size=(B, *size)).astype(np.float32) for size in sizes_of(shapes))
    locations = rng.uniform(-0.4, 1.4, locations.shape).astype(np.float32)
    locations[:, 0] = 0
    locations[:, 1] = 1
    locations[:, 2] = 1e6
    locations[:, 3] = -1e6
    return [value, locations, weights]


def run(model: onnx.ModelProto, arrays: list[np.ndarray]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(NAMES, arrays, strict=True)))[0]


@pytest.mark.parametrize("sampling", get_args(Sampling))
def test_it_is_that_of_the_model(sampling: Sampling) -> None:
    arrays = inputs()
    model = graph_of(sampling)
    expected = jax.jit(weighted_gathers, static_argnums=1)(arrays[0], SHAPES, *arrays[1:])
    np.testing.assert_allclose(run(model, arrays), expected, rtol=0, atol=1e-5)
    assert not unsupported(model)
    operators = {node.op_type for node in model.graph.node}
    assert ("GridSample" in operators) == (sampling == "grid_sample")
    assert ("GatherND" in operators) == (sampling == "gather")


def test_gathers_know_where_they_sample_in_half_precision() -> None:
    """Rows and coefficients stay float32: between pixels 128 and 160 float16 knows eighths of a pixel alone."""
    arrays, model = inputs(LARGE), graph_of("gather", LARGE)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{number}"
    found = with_precision(model, "fp16")[0]
    exact = run(model, arrays)
    np.testing.assert_allclose(run(found, arrays), exact, rtol=0, atol=4e-3 * np.abs(exact).max())
    kept = set(delicate_nodes(Graph(model))[SAMPLING])
    by_name = {node.name: node.op_type for node in model.graph.node}
    assert {"Floor", "Min", "Max", "Cast"} <= {by_name[name] for name in kept}
    # ONNX Runtime takes casts to float16 and back out of a graph, so numbers alone would not show what is rounded.
    rounded = {operator for name, operator in by_name.items() if name not in kept}
    assert "GatherND" in rounded
    assert not rounded & {"Add", "Sub", "Mul", "Floor", "Min", "Max"}
