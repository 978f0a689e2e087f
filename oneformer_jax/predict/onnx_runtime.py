"""ONNX files in ONNX Runtime, on the CPU or a CUDA device."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from oneformer_jax.errors import EngineError
from oneformer_jax.evaluation.evaluator import BatchLogits
from oneformer_jax.extras import needs
from oneformer_jax.predict.exported import ExportedBackend
from oneformer_jax.predict.metadata import ANY_BATCH, INPUTS, OUTPUTS, metadata_of

Device = Literal["auto", "cpu", "cuda"]


class OnnxBackend(ExportedBackend):
    """An exported ONNX file.

    Runs on `device`; auto: CUDA where this ONNX Runtime has it. Raises EngineError: the file is missing, damaged, not
    ours, exported with post-processing, or CUDA is asked for and not there.
    """

    def __init__(self, path: Path | str, *, device: Device = "auto", device_id: int = 0) -> None:
        self.where = str(path)
        self.session = open_session(Path(path), device=device, device_id=device_id)
        self.provider = self.session.get_providers()[0]  # CPUExecutionProvider or CUDAExecutionProvider
        self.metadata = metadata_of(self.session.get_modelmeta().custom_metadata_map, where=self.where)
        if self.metadata.postprocess != "none":
            raise EngineError(
                f"it was exported with post-processing ({self.metadata.postprocess}): its results cannot be scored or "
                "drawn at the size of the original image",
                where=self.where,
                hint="export with export.include_postprocess=none for evaluate and inference",
            )
        found = tuple(node.name for node in (*self.session.get_inputs(), *self.session.get_outputs()))
        if found != INPUTS + OUTPUTS:
            raise EngineError(f"its inputs and outputs are {found}, not {INPUTS + OUTPUTS}", where=self.where)
        size = self.metadata.batch_size
        self.batch_sizes = (1, None) if size == ANY_BATCH else (size, size)

    def run(self, images: Float32[np.ndarray, "b 3 h w"], task_tokens: Float32[np.ndarray, "b n"]) -> BatchLogits:
        """Class logits (B, Q, K + 1) and mask logits (B, Q, H/4, W/4)."""
        feeds = dict(zip(INPUTS, (images, task_tokens), strict=True))
        class_logits, mask_logits = self.session.run(list(OUTPUTS), feeds)
        return class_logits, mask_logits


def open_session(path: Path, *, device: Device = "auto", device_id: int = 0) -> Any:
    """An `onnxruntime.InferenceSession`. Raises EngineError."""
    with needs("deploy", where=str(path)):
        import onnxruntime
    if not path.is_file():
        raise EngineError("no such file", where=str(path), hint="oneformer export writes one")
    has_cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise EngineError(
            "this ONNX Runtime has no CUDA", where=str(path), hint="pip install onnxruntime-gpu in its place"
        )
    providers: list[Any] = ["CPUExecutionProvider"]
    if has_cuda and device != "cpu":
        # Heuristic choice of convolutions: the exhaustive search takes minutes at every start.
        cuda = {"device_id": device_id, "cudnn_conv_algo_search": "HEURISTIC"}
        providers.insert(0, ("CUDAExecutionProvider", cuda))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # a class of its own for every kind of defect, none of which is public
        raise EngineError(
            f"ONNX Runtime cannot open it: {str(error).strip().splitlines()[0][:300]}",
            where=str(path),
            hint="the file is damaged, not an ONNX model, or made for a newer version",
        ) from error
    if device == "cuda" and session.get_providers()[0] != "CUDAExecutionProvider":
        raise EngineError("ONNX Runtime could not start CUDA", where=str(path), hint="see what it printed above")
    return session
