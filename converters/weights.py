"""Weights from anywhere: our own checkpoints and all that `converters` reads."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from converters.convert import Kind, convert
from converters.files.read import read_source
from converters.rules import Report
from oneformer_jax.checkpoints.description import Description
from oneformer_jax.checkpoints.read import find_checkpoint, is_checkpoint, load_description, load_params
from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import PARTS


@dataclass(frozen=True)
class Weights:
    """Parameters with their architecture. Without `description` and with `report` where they were converted.

    `params` may lack top-level parts: those for training alone, or, in a backbone, all others. Then what `config` says
    of the others are defaults.
    """

    location: str
    config: OneFormerConfig
    params: dict[str, Any]
    class_names: tuple[str, ...] = ()
    description: Description | None = None
    report: Report | None = None

    @property
    def absent(self) -> tuple[str, ...]:
        """Top-level parts of a model that these weights lack."""
        return tuple(part for part in PARTS if part not in self.params)


def read_weights(location: str, kind: Kind | Literal["auto"] = "auto") -> Weights:
    """Opens a checkpoint or run folder, or converts what `location` names (see `converters.files.read`).

    Raises CheckpointError: nothing there, damaged, of no known source, or with names or shapes that do not fit.
    """
    if kind == "auto" and "://" not in location and is_checkpoint(Path(location)):
        step_dir = find_checkpoint(Path(location))
        description = load_description(step_dir)
        params = load_params(step_dir, description.shapes())
        description = replace(description, quantized={})  # `params` are float32
        return Weights(location, description.model, params, description.categories.names, description)
    source = read_source(location)
    converted = convert(source, kind)
    config = converted.config
    if isinstance(config, SwinConfig):
        config = OneFormerConfig(backbone=config)
    labels = (source.config or {}).get("id2label", {})
    names = tuple(labels[index] for index in sorted(labels, key=int))
    return Weights(location, config, converted.params, names, report=converted.report)
