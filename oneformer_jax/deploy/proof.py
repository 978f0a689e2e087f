"""An engine beside ONNX Runtime: whether it computes what its graph says, on the GPU that will run it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from oneformer_jax.predict.exported import OnnxBackend, open_session
from oneformer_jax.predict.parity import Bounds, Parity, compare, compare_results
from oneformer_jax.predict.tensorrt_engine import TensorRTBackend, TensorRTEngine
from oneformer_jax.tasks import TASKS

BOUNDS = {
    "fp32": Bounds(1e-2, 0.99),
    "fp16": Bounds(5e-2, 0.97),
    "int8": Bounds(5e-2, 0.97),
    "fp8": Bounds(5e-2, 0.97),
    "bf16": Bounds(0.1, 0.9),
}
"""By the number format of an engine. One bit of an attention mask that rounding flips moves what a query predicts, so
two runtimes that are both right differ in some entries."""
IN_FLOAT32 = ("bf16",)
"""Formats that ONNX Runtime does not compute on a CPU: engines in them are compared with the graph in float32."""


def prove(
    engine: TensorRTEngine,
    graph: Path,
    pictures: Sequence[UInt8[np.ndarray, "_h _w 3"]],
    bounds: Bounds,
) -> Parity:
    """Runs the engine, and its `graph` in ONNX Runtime on the CPU, on noise, each task in batches of 1, of 2 and of the
    largest size as far as the engine takes them, and on `pictures`."""
    smallest, largest = engine.batch_sizes
    sizes = sorted({size for size in (1, 2, largest) if smallest <= size <= largest})
    if engine.metadata.postprocess == "none":
        reference, noise = OnnxBackend(graph, device="cpu"), [size for size in sizes for _ in TASKS]
        return compare(reference.run, TensorRTBackend(engine), pictures, noise=noise, bounds=bounds)
    session, names = open_session(graph, device="cpu"), list(engine.metadata.outputs)

    def run(feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))

    return compare_results(run, engine.run, engine.metadata, pictures, noise=sizes, bounds=bounds)
