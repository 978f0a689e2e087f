"""The files of a data set, each named by itself, and the data set that they make. Free of JAX."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from oneformer_jax.data.datasets import OnBad
from oneformer_jax.data.datasets.class_masks import holds_colors
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.data.datasets.tfds_dataset import PreparedDataset
from oneformer_jax.data.storage.cache import local_file, local_folder
from oneformer_jax.errors import DataError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class SourceFiles:
    """Locations (paths, archives, addresses) of an annotation file and its folders; "" where there is none. Without
    annotations `panoptic` holds masks of classes."""

    annotations: str
    images: str = ""
    panoptic: str = ""
    name: str = ""


@dataclass(frozen=True)
class DatasetFiles:
    """The data set of a split: `prepared`, a folder of shards, or else all of `sources`.

    `label_maps`: the location of the label map of each format of annotations; "*" is for those that have none of their
    own. `on_bad_annotation`: what becomes of annotations from which nothing can be learned. `num_classes` is that of
    the model that is to learn or to predict the classes, None where it says so itself.
    """

    split: Split
    sources: tuple[SourceFiles, ...] = ()
    prepared: str = ""
    label_maps: dict[str, str] = field(default_factory=dict)
    contiguous_id: bool = True
    num_classes: int | None = None
    on_bad_annotation: OnBad = "drop"


def open_dataset(files: DatasetFiles) -> Dataset:
    """The data set of a split, its files checked against each other and the label map.

    Archives are unpacked and addresses fetched. Raises DataError: a file cannot be used, or has other classes than the
    label map or more than the model.
    """
    maps = local_label_maps(files)
    dataset: Dataset
    if files.prepared:
        folder = local_folder(files.prepared, what=f"dataset.{files.split}.images")
        dataset = PreparedDataset(folder, files.split, contiguous_id=files.contiguous_id, label_maps=maps.values())
    else:
        sources = local_sources(files)
        _refuse_colors(sources, files.split)
        dataset = open_sources(
            sources,
            contiguous_id=files.contiguous_id,
            label_maps=maps,
            on_bad=files.on_bad_annotation,
        )
    if files.num_classes is not None:
        dataset.check_num_classes(files.num_classes)
    return dataset


def _refuse_colors(sources: Sequence[Source], split: Split) -> None:
    """Raises DataError where there are panoptic PNGs without the annotations that they need."""
    for source in sources:
        if source.annotations is None and source.panoptic is not None and holds_colors(source.panoptic):
            hint = (
                f"set dataset.{split}.annotations, or empty dataset.{split}.panoptic too to go without this data; "
                "masks of classes that are colours are read by `oneformer import`"
            )
            what = "there are no annotations, and these are colours, as panoptic PNGs have, not the ids of classes"
            raise DataError(what, where=str(source.panoptic), hint=hint)


def local_label_maps(files: DatasetFiles) -> dict[str, Path]:
    """The label maps on this machine. Raises DataError."""
    return {
        name: local_file(location, what="dataset.label_map", suffix=".json")
        for name, location in files.label_maps.items()
    }


def local_sources(files: DatasetFiles) -> list[Source]:
    """The sources on this machine. Raises DataError."""

    def folder(name: str, location: str) -> Path | None:
        return local_folder(location, what=f"dataset.{files.split}.{name}") if location else None

    return [
        Source(
            local_file(source.annotations, what=f"dataset.{files.split}.annotations", suffix=".json")
            if source.annotations
            else None,
            folder("images", source.images),
            folder("panoptic", source.panoptic),
            source.name,
        )
        for source in files.sources
    ]
