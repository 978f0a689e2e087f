"""One data set from one or several annotation files, each of either format."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int16

from oneformer_jax.data.datasets import OnBad
from oneformer_jax.data.datasets.categories import SAME_ORDER, check_agreement, load_label_map, with_label_map
from oneformer_jax.data.datasets.class_masks import ClassMaskDataset
from oneformer_jax.data.datasets.coco_file import CocoFile, read_coco
from oneformer_jax.data.datasets.coco_instances import InstanceDataset
from oneformer_jax.data.datasets.coco_panoptic import PanopticDataset
from oneformer_jax.data.datasets.dataset import Dataset, EncodedRecord
from oneformer_jax.errors import DataError


@dataclass(frozen=True)
class Source:
    """An annotation file with its folders; `name` is what the metrics call it. `images` may be None where each image
    has an `img_path`; `panoptic`, the folder of PNGs, belongs to COCO panoptic files and to no others. Without an
    annotation file that folder holds masks of classes (see `class_masks`)."""

    annotations: Path | None
    images: Path | None = None
    panoptic: Path | None = None
    name: str = ""


def open_sources(
    sources: Sequence[Source],
    *,
    contiguous_id: bool = True,
    label_maps: Mapping[str, Path] | None = None,
    on_bad: OnBad = "drop",
) -> Dataset:
    """The images of all sources, one source after the other.

    Args:
        sources: at least one, with different names where there are several.
        contiguous_id: True: class index = position in `categories`; False: class index = raw id, ids are 0..K-1.
        label_maps: the label map for each format (`Format`); "*" is for all others.
        on_bad: what becomes of annotations from which nothing can be learned (see `coco_cleaning`).

    Raises:
        DataError: a file cannot be used, or categories differ between annotations, or from those of the label map.
    """
    parts = [
        open_source(source, read_coco(source.annotations, on_bad=on_bad), contiguous_id, label_maps or {})
        if source.annotations is not None
        else _open_masks(source, contiguous_id, label_maps or {})
        for source in sources
    ]
    for part in parts[1:]:
        check_same_categories(parts[0], part)
    return parts[0] if len(parts) == 1 else ConcatenatedDataset(parts)


def _open_masks(source: Source, contiguous_id: bool, label_maps: Mapping[str, Path]) -> Dataset:
    """The images of a source without annotations, whose label map says which id is which class."""
    path = label_maps.get("coco_panoptic", label_maps.get("*"))
    if source.images is None or source.panoptic is None or path is None:
        hint = "set dataset.<split>.annotations; or, for masks of classes, dataset.<split>.images and dataset.label_map"
        raise DataError("there are no annotations", where=str(source.panoptic or source.images or ""), hint=hint)
    categories = load_label_map(path, contiguous_id=contiguous_id)
    return ClassMaskDataset(source.images, source.panoptic, categories, name=source.name)


def open_source(source: Source, coco: CocoFile, contiguous_id: bool, label_maps: Mapping[str, Path]) -> Dataset:
    """The images of one source, whose annotations are read. See `open_sources`."""
    label_map_path = label_maps.get(coco.format, label_maps.get("*"))
    dataset: Dataset
    if coco.format == "coco_panoptic":
        if source.panoptic is None:
            raise DataError(
                "these are COCO panoptic annotations, but no folder of panoptic PNGs is given",
                where=coco.where,
                hint="set dataset.<split>.panoptic",
            )
        dataset = PanopticDataset(source.images, source.panoptic, coco, contiguous_id=contiguous_id, name=source.name)
    else:
        if source.panoptic is not None:
            raise DataError(
                f"these are COCO instance annotations, which have no panoptic PNGs, but a folder is given: "
                f"{source.panoptic}",
                where=coco.where,
                hint="leave dataset.<split>.panoptic empty, or name the COCO panoptic file in annotations",
            )
        dataset = InstanceDataset(source.images, coco, contiguous_id=contiguous_id, name=source.name)
    if label_map_path is not None:
        stated = {entry["id"] for entry in coco.categories if "isthing" in entry}
        dataset.categories, dataset.warnings = with_label_map(
            dataset.categories, label_map_path, stated=stated, contiguous_id=contiguous_id
        )
    return dataset


def check_same_categories(first: Dataset, other: Dataset) -> None:
    """Raises DataError unless both data sets number the same ids, names, things and stuff in the same order."""
    check_agreement(
        (first.categories, first.where),
        (other.categories, "these annotations"),
        "ids",
        "things",
        where=other.where,
        hint=f"{SAME_ORDER}; the label map says which are things",
    )


class ConcatenatedDataset(Dataset):
    """Data sets of the same categories, one after the other."""

    def __init__(self, datasets: Sequence[Dataset]) -> None:
        self._datasets = tuple(datasets)
        self.records = tuple(record for dataset in datasets for record in dataset.records)
        self.categories = datasets[0].categories
        self.where = ", ".join(dataset.where for dataset in datasets)
        self.notes = tuple(note for dataset in datasets for note in dataset.notes)
        self.warnings = tuple(text for dataset in datasets for text in dataset.warnings)
        self._starts = np.cumsum([0, *(len(dataset) for dataset in datasets)])
        self.parts = {
            name: range(part.start + start, part.stop + start)
            for dataset, start in zip(datasets, self._starts.tolist(), strict=False)
            for name, part in dataset.parts.items()
        }

    @property
    def planes(self) -> int:
        return max(dataset.planes for dataset in self._datasets)

    def _place(self, i: int) -> tuple[Dataset, int]:
        number = int(np.searchsorted(self._starts, i, side="right")) - 1
        return self._datasets[number], i - int(self._starts[number])

    def read_segments(self, i: int) -> Int16[np.ndarray, "r h w"]:
        dataset, j = self._place(i)
        return dataset.read_segments(j)

    def encoded(self, i: int) -> EncodedRecord:
        dataset, j = self._place(i)
        return dataset.encoded(j)


def default_names(annotations: Sequence[str]) -> tuple[str, ...]:
    """Names of data sets: their files without suffix where these differ, else their folders, else their numbers."""
    paths = [Path(path) for path in annotations]
    for names in ([path.stem for path in paths], [path.parent.name for path in paths]):
        if max(Counter(names).values(), default=0) == 1:
            return tuple(names)
    return tuple(f"dataset_{number}" for number in range(len(annotations)))
