"""What an exported model is, besides its graph: one JSON text, inside an ONNX file or beside an engine."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.geometry import Size
from oneformer_jax.errors import DataError, EngineError
from oneformer_jax.postprocess.results import Thresholds
from oneformer_jax.stored import LARGEST, TINIEST, parse_json, stored_fields
from oneformer_jax.tasks import TASKS, Task
from oneformer_jax.writing import write_json

KEY = "oneformer_jax"
"""Of the metadata entry in an ONNX file."""

INPUTS, OUTPUTS = ("images", "task_tokens"), ("pred_logits", "pred_masks")
"""Of a model without post-processing; every axis but the first is static."""

RESULTS: dict[Task, tuple[str, ...]] = {
    "semantic": ("classes",),
    "instance": ("labels", "scores", "masks"),
    "panoptic": ("segment_ids", "labels", "scores"),
}
"""Outputs of a graph with post-processing, whose only input is uint8 images (B, H, W, 3)."""

Postprocess = Literal["none", "semantic", "instance", "panoptic"]
ANY_BATCH = -1
AGAIN = "export the checkpoint again with this version"


@dataclass(frozen=True)
class Metadata:
    """Everything that running an exported model needs and its graph does not say.

    `image_size` (height, width) is static; `batch_size` is that of the graph, -1 where it takes any. `task_tokens` has
    one row for each of `TASKS`: the model's second input. With `postprocess` the graph takes uint8 images alone and
    holds `task`. `checkpoint` names the weights, for people. `thresholds` are the checkpoint's; files of 0.2 hold
    none and get the defaults. `mask_stride`: pixels of an image to one of its mask logits.
    """

    categories: Categories
    num_classes: int
    num_queries: int
    image_size: Size
    batch_size: int
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    task_pad_id: int
    task_tokens: tuple[tuple[int, ...], ...]
    checkpoint: str
    postprocess: Postprocess = "none"
    thresholds: Thresholds = field(default_factory=Thresholds)
    mask_stride: int = 4

    def tokens_of(self, task: Task) -> Float32[np.ndarray, " n"]:
        """The row of a task, as the model takes it."""
        return np.array(self.task_tokens[TASKS.index(task)], np.float32)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names that the graph gives its inputs."""
        return INPUTS if self.postprocess == "none" else INPUTS[:1]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names that the graph gives its outputs."""
        return OUTPUTS if self.postprocess == "none" else RESULTS[self.postprocess]

    @property
    def is_thing(self) -> Bool[np.ndarray, " k"]:
        """Of every output class; outputs beyond the categories are stuff."""
        return self.categories.is_thing_of(self.num_classes)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"categories": self.categories.to_json(), "thresholds": vars(self.thresholds)}

    @classmethod
    def from_json(cls, content: Any, *, where: str) -> "Metadata":
        """The inverse of `to_json`; other keys are left alone. Raises EngineError: keys missing or of another kind."""
        fields, _ = stored_fields(cls, content, where=where, optional=("thresholds", "mask_stride"), error=EngineError)
        try:
            categories = Categories.from_json(fields["categories"], where=where)
        except DataError as error:
            raise EngineError(error.what, where=error.where, hint=AGAIN) from error
        thresholds = fields.get("thresholds", vars(Thresholds()))
        place = f"{where}: thresholds"
        stored, _ = stored_fields(Thresholds, thresholds, where=place, error=EngineError)
        try:
            counting = Thresholds(**stored)
        except ValueError as error:
            raise EngineError(f"its metadata cannot be used: {error}", where=place, hint=AGAIN) from error
        height, width = fields["image_size"]
        tokens = tuple(tuple(row) for row in fields["task_tokens"])
        metadata = cls(
            **fields
            | {
                "categories": categories,
                "image_size": (height, width),
                "pixel_mean": tuple(map(float, fields["pixel_mean"])),
                "pixel_std": tuple(map(float, fields["pixel_std"])),
                "task_tokens": tokens,
                "thresholds": counting,
            }
        )
        wrong = {
            "image_size": min(height, width) < 1,
            "batch_size": metadata.batch_size < 1 and metadata.batch_size != ANY_BATCH,
            "num_queries": metadata.num_queries < 1,
            "mask_stride": metadata.mask_stride < 1,
            "num_classes": metadata.num_classes < len(categories),
            "pixel_mean": not all(abs(value) <= LARGEST for value in metadata.pixel_mean),
            "pixel_std": not all(TINIEST <= value <= LARGEST for value in metadata.pixel_std),
            "task_tokens": len(tokens) != len(TASKS) or len(set(map(len, tokens))) != 1,
        }
        if names := [name for name, is_wrong in wrong.items() if is_wrong]:
            found = ", ".join(f"{name} is {fields[name]!r}"[:80] for name in names)
            raise EngineError(f"its metadata cannot be used: {found}", where=where, hint=AGAIN)
        return metadata


def metadata_of(entries: Mapping[str, str], *, where: str) -> Metadata:
    """Of an ONNX file's metadata entries. Raises EngineError: none of ours among them."""
    if KEY not in entries:
        raise EngineError(
            "not exported by this project: it contains no metadata of a OneFormer model",
            where=where,
            hint="oneformer export writes files that say what their classes and inputs are; those of a file of TAO "
            "evaluate and inference take from dataset.label_map",
        )
    return Metadata.from_json(parse_json(entries[KEY], where=where, error=EngineError), where=where)


def sidecar(engine: Path) -> Path:
    """Where the metadata of an engine stands: `model.engine.json` beside `model.engine`."""
    return engine.with_name(engine.name + ".json")


def write_sidecar(engine: Path, metadata: Metadata, **facts: Any) -> Path:
    """Writes the metadata beside an engine, with further `facts` about it."""
    path = sidecar(engine)
    write_json(path, metadata.to_json() | facts)
    return path


def read_sidecar(engine: Path) -> tuple[Metadata, dict[str, Any]]:
    """The metadata beside an engine, and all that stands in that file. Raises EngineError."""
    path = sidecar(engine)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise EngineError(
            f"the metadata of the engine cannot be read: {error.strerror}",
            where=str(path),
            hint="gen_trt_engine writes it beside the engine: keep the two together",
        ) from error
    content = parse_json(text, where=str(path), error=EngineError)
    return Metadata.from_json(content, where=str(path)), content
