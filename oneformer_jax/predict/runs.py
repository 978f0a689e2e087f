"""What an evaluation, an inference, a comparison or a benchmark of a model is to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from oneformer_jax.checkpoints.agreement import Statistics
from oneformer_jax.data.geometry import Policy, Size
from oneformer_jax.devices import DeviceChoice
from oneformer_jax.evaluation.evaluator import Scoring
from oneformer_jax.postprocess.windows import Windows
from oneformer_jax.predict.write import Format
from oneformer_jax.tasks import Task

ModelKind = Literal["checkpoint", "onnx", "engine"]


@dataclass(frozen=True)
class Stated:
    """What somebody wrote down about a model that knows it itself.

    `architecture` (fields) and `statistics` (mean and deviation of the pixels): those of the model count; where they
    differ, that is a warning. `thresholds` by
    their names and the classes of `label_maps` (locations; the first that has the model's classes) count in place of
    the model's.
    """

    architecture: Mapping[str, Any] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    label_maps: tuple[str, ...] = ()
    contiguous_id: bool = True
    statistics: Statistics | None = None


@dataclass(frozen=True)
class ModelChoice:
    """A checkpoint, an ONNX file or an engine, and what it runs on.

    `batch_size` counts the images of one device; None: as many as is usual for the data, or what the model takes that
    comes next to it. `precision` is what products of a checkpoint are computed in (`models.precision`). `unused` is a
    model that was named besides and does not count. Where none `is_named`, a training may have left one below `path`.
    """

    path: str
    devices: DeviceChoice = field(default_factory=DeviceChoice)
    batch_size: int | None = None
    stated: Stated = field(default_factory=Stated)
    precision: str = "32"
    unused: str = ""
    is_named: bool = True


@dataclass(frozen=True)
class EvaluationRun:
    """A model, and what it is scored on. A model of one size takes images in the letterbox of that size."""

    model: ModelChoice
    scoring: Scoring


@dataclass(frozen=True)
class Wanted:
    """What is written of results.

    `formats`: kinds of files, None for all that the task has. `classes`: lists of names (see `classes_named`), none for
    all. `threshold`: the score that segments and instances reach, None for what the model says of segments; listed
    instances then reach any. `names`: whether classes are written over the pictures.
    """

    formats: tuple[Format, ...] | None = None
    classes: tuple[str, ...] = ()
    threshold: float | None = None
    names: bool = True


@dataclass(frozen=True)
class InferenceRun:
    """A model, and the images whose results of one task are written.

    `images` are folders, archives or addresses, for `predict` also what else `find_pictures` takes. Images are fitted
    into `image_size` (height, width) where that is given, else `policy` sizes them, None: that of the model; a model of
    one size takes them in the letterbox of that size. With `windows`, larger images are seen in parts, each of which is
    sized so. `batch_size` is what `ModelChoice` calls usual. `images_key` and `threshold_key` are the settings of the
    images and of the score of segments, for messages.
    """

    model: ModelChoice
    images: tuple[str, ...]
    task: Task
    policy: Policy | None = None
    image_size: Size | None = None
    batch_size: int = 1
    wanted: Wanted = field(default_factory=Wanted)
    images_key: str = "images"
    threshold_key: str = "model.test.object_mask_threshold"
    windows: Windows | None = None


@dataclass(frozen=True)
class ComparisonRun:
    """Two models, one before and one after quantization, are measured on the same devices.

    The path of `model` is that of neither. `image_size` (height, width) is what a checkpoint's latency is measured at;
    `scoring`: None where there are no annotated images.
    """

    model: ModelChoice
    image_size: Size
    scoring: Scoring | None = None


@dataclass(frozen=True)
class BenchmarkRun:
    """A model, and the batches that it is timed with. `image_size` (height, width): None for that of the model, which a
    checkpoint does not have. `output` is a JSON file."""

    kind: ModelKind
    path: Path
    batch_sizes: tuple[int, ...] = (1,)
    image_size: Size | None = None
    task: Task = "semantic"
    warm_up: int = 3
    runs: int = 20
    device: int = 0
    output: Path | None = None
