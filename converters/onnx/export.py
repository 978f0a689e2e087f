"""Parameters to a proved ONNX file: written aside, checked, compared with JAX, and only then put in place."""

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from jaxtyping import UInt8

from converters.onnx.parity import compare_labels, jax_forward
from converters.onnx.settings import Ending, Sampling
from converters.onnx.tensorrt_support import unsupported
from converters.onnx.trace import build_graph
from oneformer_jax.errors import EngineError
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.predict.exported import Device, OnnxBackend, open_session
from oneformer_jax.predict.metadata import Metadata
from oneformer_jax.predict.parity import Parity, compare
from oneformer_jax.writing import appearing_in, write_json

ONE_FILE_BYTES = 2**31 - 2**20
"""Protobuf's limit, with room for the graph: above it the weights go into a file of their own."""


@dataclass(frozen=True)
class Exported:
    """A file that may be used, and what was found out about it."""

    path: Path
    opset: int
    nodes: dict[str, int]
    megabytes: float
    seconds: float
    parity: Parity

    def to_json(self) -> dict[str, Any]:
        """For the report file."""
        return vars(self) | {"path": str(self.path), "parity": self.parity.to_json()}


def export_model(
    params: Any,
    config: OneFormerConfig,
    *,
    metadata: Metadata,
    path: Path,
    opset: int,
    ending: Ending | None = None,
    sampling: Sampling = "gather",
    pictures: Sequence[UInt8[np.ndarray, "_h _w 3"]],
    device: Device = "cpu",
    device_id: int = 0,
    report: Path | None = None,
) -> Exported:
    """Writes the model to `path`, over what is there; until it has passed all checks that stays as it is. `report`:
    a JSON file for what was found, which is there before the model.

    `pictures` are those that JAX and ONNX Runtime are compared on, besides noise; `device` is ONNX Runtime's.

    Raises EngineError where the graph is not valid or does not compute what JAX computes: it is then kept beside
    `path` as `<name>.failed.onnx`.
    """
    start = time.perf_counter()
    with appearing_in(path.parent, path.name) as folder:
        written = folder / path.name
        model = build_graph(params, config, metadata, opset=opset, ending=ending, sampling=sampling)
        write(model, written)
        nodes = dict(Counter(node.op_type for node in model.graph.node).most_common())
        del model
        if wrong := problems(written):
            raise EngineError("; ".join(wrong), where=str(_keep_failed(written, path)))
        reference = jax_forward(params, config)
        if ending is None:
            backend = OnnxBackend(written, device=device, device_id=device_id)
            parity = compare(reference, backend, pictures, noise=[backend.batch_sizes[1] or 2] * 2)
        else:
            session = open_session(written, device=device, device_id=device_id)
            parity = compare_labels(reference, session, metadata, ending, pictures)
        if parity.failures:
            raise EngineError(
                "ONNX Runtime and JAX disagree: " + "; ".join(parity.failures),
                where=str(_keep_failed(written, path)),
                hint="the file is kept under this name for inspection",
            )
        files = [file for file in (_data_of(written), written) if file.exists()]
        size = sum(file.stat().st_size for file in files) / 1e6
        exported = Exported(path, opset, nodes, round(size, 3), round(time.perf_counter() - start, 1), parity)
        if report is not None:
            write_json(report, exported.to_json())
        outdated = _data_of(path) if len(files) == 1 else None
    if outdated is not None:  # weights of the graph that was there before
        outdated.unlink(missing_ok=True)
    return exported


def problems(path: Path) -> list[str]:
    """What is wrong with the graph in a file, which has to be valid and of standard operators that TensorRT accepts;
    empty where all is well."""
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


def write(model: onnx.ModelProto, path: Path) -> None:
    """One file, or where that is too much for the format the weights beside it in `<name>.data`."""
    if model.ByteSize() <= ONE_FILE_BYTES:
        onnx.save_model(model, str(path))
    else:
        location = _data_of(path).name
        onnx.save_model(model, str(path), save_as_external_data=True, location=location, size_threshold=1024)


def _data_of(path: Path) -> Path:
    return path.with_name(path.name + ".data")


def _keep_failed(written: Path, path: Path) -> Path:
    """Moves a file that must not be used beside the place that it was meant for."""
    failed = path.with_name(f"{path.stem}.failed.onnx")
    if _data_of(written).exists():
        write(onnx.load(str(written)), failed)
    else:
        shutil.move(written, failed)
    return failed
