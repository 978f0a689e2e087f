"""Weights from anywhere: our own checkpoints, and all that `converters` reads, by which of the known sources it is."""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from converters.files.read import Source, Statistics, read_classes, read_source, read_statistics
from converters.huggingface_config import backbone_of, check_built_in, check_told, class_names, told
from converters.infer_backbone import Facts, Told, infer_backbone, is_radio
from converters.infer_config import infer_architecture
from converters.names import huggingface, original, radio
from converters.names.recognise import Kind, recognise
from converters.published import facts_of
from converters.rules import Params, Report, carry_over
from converters.shapes import Shapes
from oneformer_jax.checkpoints.description import Description
from oneformer_jax.checkpoints.read import find_checkpoint, is_checkpoint, load_description, load_params
from oneformer_jax.data import PIXEL_MEAN, PIXEL_STD
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.storage.addresses import is_address
from oneformer_jax.errors import CheckpointError, DataError
from oneformer_jax.models.backbones import BackboneConfig, DinatConfig, RadioConfig, SwinConfig
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import PARTS, TRAINING_ONLY, shapes
from oneformer_jax.postprocess.results import Thresholds


@dataclass(frozen=True)
class Converted:
    """Parameters with their architecture: a whole model, or a backbone alone under the key `backbone`. `statistics` are
    those of the pixels that it was trained with, where the weights hold them."""

    kind: Kind
    config: OneFormerConfig | BackboneConfig
    params: Params = field(repr=False)
    report: Report = field(repr=False)
    statistics: Statistics | None = None

    @property
    def thresholds(self) -> Thresholds:
        """Those that the results of the code base were published with."""
        return original.THRESHOLDS if self.kind in ("shi", "huggingface") else Thresholds()


def convert(
    source: Source,
    kind: Kind | Literal["auto"] = "auto",
    *,
    backbone: Facts | None = None,
    otherwise: Facts | None = None,
) -> Converted:
    """Parameters and architecture of a source, of a kind that is recognised from its names unless it is given.

    What weights do not hold of a backbone (`infer_backbone`) is told by `backbone`, else by Hugging Face's
    configuration, else by a table of published files, else by `otherwise`.

    Parts for training alone may be absent; a backbone lacks what OneFormer adds to it. Raises CheckpointError
    where the architecture cannot be read or a Hugging Face configuration asks for a model that computes something else,
    and ConversionError for names that are missing or unexpected and shapes that do not fit.
    """
    where = source.location
    found = recognise(source.arrays, kind, where=where)
    hf = (source.config or {}) if found.kind in ("huggingface", "radio") else {}
    kind_of_backbone = "radio" if found.kind == "radio" else huggingface.kind_of_backbone(found.arrays)
    check_built_in(hf, is_backbone=found.is_backbone, kind=kind_of_backbone, where=where)
    carried = carry_over(found.arrays, found.rules)
    shapes = Shapes(carried.shapes, where)
    about = _told(backbone, hf if found.is_backbone else backbone_of(hf, where=where), where, otherwise)
    about = about.knowing({"align_corners": radio.is_tao(source.arrays)}) if is_radio(shapes) else about
    config: OneFormerConfig | BackboneConfig
    if found.is_backbone:
        config = infer_backbone(shapes, told=about, hf_config=hf)
    else:
        pad = original.TASK_PAD_ID if found.kind == "tao" else 0
        config = infer_architecture(shapes, told_backbone=about, hf_config=hf, task_pad_id=pad)
    notes = [f"the names begin with {found.prefix}, which is left out"] if found.prefix else []
    notes += about.notes
    if hf and isinstance(config, OneFormerConfig | SwinConfig | DinatConfig | RadioConfig):
        unknown = check_told(hf, config, has_text="text_encoder/token_embedding" in shapes, where=where)
        if unknown:
            notes.append(f"not known in config.json, and taken to be without effect: {', '.join(unknown)}")
    statistics = radio.statistics_of(source.arrays)
    if statistics:
        mean, std = ([round(x, 3) for x in part] for part in statistics)
        notes.append(f"trained on pixels with dataset.pixel_mean {mean} and pixel_std {std}: set them in its spec")
    optional = radio.ADDED_TO_BACKBONES if found.is_backbone else TRAINING_ONLY
    params, report = carried.fit(template(config, where), optional=optional, where=where)
    report = replace(report, skipped={**report.skipped, **found.skipped}, notes=tuple(notes))
    return Converted(found.kind, config, params, report, statistics)


def _told(backbone: Facts | None, hf: Facts, where: str, otherwise: Facts | None) -> Told:
    """Of those who know what weights do not hold, the first."""
    if backbone is not None:
        return Told(backbone, "what is told of the backbone")
    if "dilations" in hf:
        rate = told(hf, "drop_path_rate", DinatConfig.drop_path_rate, where=where)
        return Told({"dilations": hf["dilations"], "drop_path_rate": rate}, "config.json")
    if hf.get("model_type") == "radio" and "num_attention_heads" in hf:
        return Told({"num_heads": hf["num_attention_heads"]}, "config.json")
    published = facts_of(where)
    return Told(published, "the published file") if published else Told(otherwise or {}, is_binding=False)


def template(config: OneFormerConfig | BackboneConfig, where: str) -> Params:
    """Shapes and dtypes of the parameters: those of a backbone are under the key `backbone`."""
    try:
        if isinstance(config, BackboneConfig):
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
    `folder` is that of Hugging Face, on this machine, which they lie in. `statistics` are those of `Converted`.

    `params` may lack top-level parts: those for training alone, or, in a backbone, all others. Then what `config` says
    of the others are defaults.
    """

    location: str
    config: OneFormerConfig
    params: dict[str, Any] = field(repr=False)
    class_names: tuple[str, ...] = ()
    thresholds: Thresholds = field(default_factory=Thresholds)
    description: Description | None = None
    report: Report | None = None
    folder: Path | None = None
    statistics: Statistics | None = None

    @property
    def absent(self) -> tuple[str, ...]:
        """Top-level parts of a model that these weights lack."""
        return tuple(part for part in PARTS if part not in self.params)

    @property
    def categories(self) -> Categories | None:
        """The classes and which of them are things, where the folder says both. Raises CheckpointError, DataError:
        classes that cannot be used, or of another number."""
        told = read_classes(self.folder) if self.folder and "predictor" in self.params else None
        if told is None:
            return None
        found = Categories.from_json(told, where=self.location, isthing_required=True)
        return self.fitting(found, self.location)

    @property
    def classes(self) -> Categories:
        """The classes by their names or numbers, all of them stuff."""
        if not self.class_names:
            return Categories.numbered(self.config.num_classes)
        return Categories.from_json([{"id": index, "name": name} for index, name in enumerate(self.class_names)])

    def fitting(self, categories: Categories, where: str) -> Categories:
        """`categories`. Raises DataError: of another number than the classes."""
        if len(categories) != self.config.num_classes:
            raise DataError(
                f"{len(categories)} categories, the weights have {self.config.num_classes} classes",
                where=where,
                hint="give a --label-map with the classes of these weights, in their order",
            )
        return categories

    def described(self, categories: Categories) -> Description:
        """What a checkpoint of these weights says."""
        beside = read_statistics(self.folder) if self.folder and self.statistics is None else None
        mean, deviation = self.statistics or beside or (PIXEL_MEAN, PIXEL_STD)
        return self.description or Description(
            model=self.config,
            categories=categories,
            pixel_mean=mean,
            pixel_std=deviation,
            spec={},
            absent=self.absent,
            thresholds=self.thresholds,
        )


def read_weights(
    location: str,
    kind: Kind | Literal["auto"] = "auto",
    *,
    backbone: Facts | None = None,
    otherwise: Facts | None = None,
) -> Weights:
    """Opens a checkpoint or run folder, or converts what `location` names (see `converters.files.read`); `backbone` and
    `otherwise` are those of `convert`.

    Raises CheckpointError: nothing there, damaged, of no known source, or with names or shapes that do not fit.
    """
    if kind == "auto" and not is_address(location) and is_checkpoint(Path(location)):
        step_dir = find_checkpoint(Path(location))
        description = load_description(step_dir)
        params = load_params(step_dir, description.shapes(str(step_dir)))
        description = replace(description, quantized={})  # `params` are float32
        categories = description.categories
        known = () if categories.are_numbered else categories.names
        return Weights(location, description.model, params, known, description.thresholds, description)
    source = read_source(location)
    converted = convert(source, kind, backbone=backbone, otherwise=otherwise)
    config = converted.config
    names: tuple[str, ...] = ()
    if isinstance(config, BackboneConfig):
        config = OneFormerConfig(backbone=config)
    elif converted.kind == "huggingface":
        names = class_names(source.config or {}, config.num_classes, where=location)
    return Weights(
        location,
        config,
        converted.params,
        names,
        converted.thresholds,
        report=converted.report,
        folder=source.folder,
        statistics=converted.statistics,
    )
