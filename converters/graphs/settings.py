"""What a quantization is asked for. Free of JAX and ONNX."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from converters.onnx.settings import ExportRun
from oneformer_jax.predict.runs import ComparisonRun

Mode = Literal["static_ptq", "weight_only_ptq"]


@dataclass(frozen=True)
class QuantizationRun:
    """A checkpoint or an ONNX file to the same in 8 bits, and the `comparison` of the two.

    `mode`: weights alone, or activations too, whose ranges are found by `algorithm` on `images` (a location) in batches
    of `batch_size` on `device`; a checkpoint is then exported first, as `export` says. `rules` say which layers become
    what (see `layers.chosen_layers`); those that `skip_names` names stay as they are. `backend` is the name that
    somebody gave it.
    """

    model: Path
    comparison: ComparisonRun
    export: ExportRun | None = None
    backend: str = "torchao"
    mode: Mode = "weight_only_ptq"
    algorithm: str = "minmax"
    rules: tuple[Mapping[str, Any], ...] = ()
    skip_names: tuple[str, ...] = ()
    images: str = ""
    batch_size: int = 1
    device: str = "cpu"
    overwrite: bool = False

    @property
    def is_graph(self) -> bool:
        """Whether the model is an ONNX file."""
        return self.model.suffix == ".onnx"

    @property
    def target(self) -> str:
        """The name of the result: a checkpoint is a folder."""
        return "quantized_model" + (".onnx" if self.is_graph or self.mode == "static_ptq" else "")
