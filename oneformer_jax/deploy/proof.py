"""An engine beside ONNX Runtime: whether it computes what its graph says, on the GPU that will run it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from oneformer_jax.predict.exported import ExportedBackend
from oneformer_jax.predict.parity import Bounds, Parity, compare
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
    engine: ExportedBackend,
    reference: ExportedBackend,
    pictures: Sequence[UInt8[np.ndarray, "_h _w 3"]],
    bounds: Bounds,
) -> Parity:
    """Runs both on noise, each task in batches of 1, of 2 and of the largest size as far as the engine takes them, and
    on `pictures`."""
    smallest, largest = engine.batch_sizes
    sizes = sorted({size for size in (1, 2, largest or 2) if smallest <= size <= (largest or size)})
    return compare(reference.run, engine, pictures, noise=[size for size in sizes for _ in TASKS], bounds=bounds)
