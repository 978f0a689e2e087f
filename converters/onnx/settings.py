"""What an export or a quantization is asked for. Free of JAX and ONNX."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from oneformer_jax.data.geometry import Size
from oneformer_jax.postprocess.results import Thresholds
from oneformer_jax.predict.metadata import ANY_BATCH, Postprocess
from oneformer_jax.predict.runs import ComparisonRun, Stated
from oneformer_jax.tasks import Task

OPSETS = range(17, 24)
"""Those in which the graph is written: LayerNormalization begins with 17."""
Mode = Literal["static_ptq", "weight_only_ptq"]
Sampling = Literal["gather", "grid_sample"]
"""How deformable attention is written."""


@dataclass(frozen=True)
class Ending:
    """What a graph with post-processing holds: the task, the thresholds of its results and, for a task whose results
    are not those of its own name, their kind."""

    task: Task
    thresholds: Thresholds
    results: Task | None = None

    @property
    def postprocess(self) -> Task:
        """The kind of the results."""
        return self.results or self.task


@dataclass(frozen=True)
class ExportRun:
    """A checkpoint to an ONNX file.

    `path`: the file to write, None: `model.onnx` in the folder of the run. `image_size` (height, width) is static;
    `batch_size` -1: any. `device`: the index of the one on which JAX and ONNX Runtime are compared, None: the
    processor. `images`: locations of the images that they are compared on, by the key that names them; the first one
    that is there is used. `triton`: a folder that gets a model repository of the file, too. `verbose`: list all
    operators, and what the tracing says.
    """

    checkpoint: Path
    path: Path | None = None
    image_size: Size = (640, 640)
    batch_size: int = ANY_BATCH
    opset: int = OPSETS[0]
    sampling: Sampling = "gather"
    ending: Ending | None = None
    device: int | None = 0
    images: tuple[tuple[str, str], ...] = ()
    overwrite: bool = False
    triton: Path | None = None
    verbose: bool = False
    stated: Stated = field(default_factory=Stated)

    @property
    def postprocess(self) -> Postprocess:
        """What the graph holds after the model."""
        return self.ending.postprocess if self.ending else "none"


@dataclass(frozen=True)
class QuantizationRun:
    """A checkpoint or an ONNX file to the same in 8 bits, and the `comparison` of the two.

    `mode`: weights alone, or activations too, whose ranges are found by `algorithm` on `images` (a location) in batches
    of `batch_size` on `device`; a checkpoint is then exported first, as `export` says. `rules` say which layers become
    what (see `graphs.layers.chosen_layers`); those that `skip_names` names stay as they are. `backend` is the name that
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
