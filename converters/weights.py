"""Weights from anywhere: our own checkpoints, and all that `converters` reads, by which of the known sources it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from converters.files.read import Source, read_source
from converters.infer_config import Shapes, infer_architecture, infer_swin
from converters.names import huggingface, original, swin
from converters.rules import Params, Report, Rule, StateDict, carry_over
from oneformer_jax.checkpoints.description import Description
from oneformer_jax.checkpoints.read import find_checkpoint, is_checkpoint, load_description, load_params
from oneformer_jax.errors import CheckpointError
from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import PARTS, TRAINING_ONLY, shapes
from oneformer_jax.postprocess.results import Thresholds

Kind = Literal["shi", "tao", "huggingface", "swin", "timm"]


@dataclass(frozen=True)
class Converted:
    """Parameters with their architecture: a whole model, or a Swin backbone alone under the key `backbone`."""

    kind: Kind
    config: OneFormerConfig | SwinConfig
    params: Params
    report: Report

    @property
    def thresholds(self) -> Thresholds:
        """Those that the results of the code base were published with."""
        return original.THRESHOLDS if self.kind in ("shi", "huggingface") else Thresholds()


def identify(arrays: StateDict, *, where: str = "") -> Kind:
    """The source of a state dict, by its names.

    The original's names without a sign of TAO (`names.original.is_tao`) count as the original's: bare weights of TAO
    that lack the backbone's unused head cannot be distinguished from them. Raises CheckpointError with the first names
    where nothing fits.
    """
    if any(name.startswith("model.pixel_level_module.") for name in arrays):
        return "huggingface"
    if any(name.removeprefix(original.PREFIX).startswith("sem_seg_head.predictor.") for name in arrays):
        return "tao" if original.is_tao(arrays) else "shi"
    if "patch_embed.proj.weight" in arrays:
        return "timm" if swin.is_newer_timm(arrays) else "swin"
    names = list(arrays)
    raise CheckpointError(
        f"weights from no known source: {len(names)} arrays, the first ones {', '.join(names[:8]) or '(none)'}",
        where=where,
        hint="known sources are OneFormer with a Swin backbone (SHI-Labs, NVIDIA TAO, Hugging Face) and Swin "
        "transformers (Microsoft, timm)",
    )


def convert(source: Source, kind: Kind | Literal["auto"] = "auto", num_heads: int | None = None) -> Converted:
    """Parameters and architecture of a source, of a kind that is recognised from its names unless it is given.

    `num_heads` are the attention heads of the decoders (see `infer_architecture`). Parts for training alone may be
    absent; a backbone lacks the norms of its stages' outputs. Raises CheckpointError where the architecture cannot be
    read and ConversionError for names that are missing or unexpected and shapes that do not fit.
    """
    where = source.location
    kind = identify(source.arrays, where=where) if kind == "auto" else kind
    arrays = huggingface.published_names(source.arrays) if kind == "huggingface" else source.arrays
    rules: dict[Kind, list[Rule]] = {
        "shi": original.RULES,
        "tao": original.tao_rules(arrays),
        "huggingface": huggingface.RULES,
        "swin": swin.RULES,
        "timm": swin.NEWER_TIMM_RULES if swin.is_newer_timm(arrays) else swin.RULES,
    }
    carried = carry_over(arrays, rules[kind])
    found = Shapes(carried.shapes, where)
    config: OneFormerConfig | SwinConfig
    if kind in ("swin", "timm"):
        config = infer_swin(found)
    else:
        pad = original.TASK_PAD_ID if kind == "tao" else 0
        config = infer_architecture(found, hf_config=source.config, num_heads=num_heads, task_pad_id=pad)
    optional = swin.OUTPUT_NORMS if isinstance(config, SwinConfig) else TRAINING_ONLY
    params, report = carried.fit(template(config, where), optional=optional, where=where)
    return Converted(kind, config, params, report)


def template(config: OneFormerConfig | SwinConfig, where: str) -> Params:
    """Shapes and dtypes of the parameters: those of a backbone are under the key `backbone`."""
    try:
        if isinstance(config, SwinConfig):
            init = partial(config.build().init, deterministic=True)
            return {"backbone": jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]}
        return shapes(config)
    except (TypeError, ValueError) as error:  # such as heads that do not divide a width
        message = f"no model has the architecture that the shapes imply: {str(error).splitlines()[0]}"
        raise CheckpointError(f"{message} ({config})", where=where) from error


@dataclass(frozen=True)
class Weights:
    """Parameters with their architecture. Without `description` and with `report` where they were converted.

    `class_names` are () where they are not known. `thresholds` are those of the code base that the weights come from.

    `params` may lack top-level parts: those for training alone, or, in a backbone, all others. Then what `config` says
    of the others are defaults.
    """

    location: str
    config: OneFormerConfig
    params: dict[str, Any]
    class_names: tuple[str, ...] = ()
    thresholds: Thresholds = field(default_factory=Thresholds)
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
        categories = description.categories
        names = () if categories.are_numbered else categories.names
        return Weights(location, description.model, params, names, description.thresholds, description)
    source = read_source(location)
    converted = convert(source, kind)
    config = converted.config
    if isinstance(config, SwinConfig):
        config = OneFormerConfig(backbone=config)
    names = class_names(source.config, location)
    return Weights(location, config, converted.params, names, converted.thresholds, report=converted.report)


def class_names(config: Mapping[str, Any] | None, where: str) -> tuple[str, ...]:
    """The names of `id2label` in Hugging Face's configuration, in the order of its numbers; () where there is none.

    Raises CheckpointError where it maps anything else than numbers to names.
    """
    labels = (config or {}).get("id2label") or {}
    numbered = isinstance(labels, dict) and all(str(key).isdecimal() and len(str(key)) < 10 for key in labels)
    if not numbered or not all(isinstance(name, str) for name in labels.values()):
        raise CheckpointError("id2label: expected names by the numbers of their classes", where=where)
    return tuple(labels[index] for index in sorted(labels, key=int))
