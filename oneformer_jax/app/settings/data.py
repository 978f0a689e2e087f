"""The data sets that a spec names: their files found, fetched, unpacked and opened. Free of JAX."""

from pathlib import Path
from typing import Literal, get_args

from oneformer_jax.app.spec import Spec, require
from oneformer_jax.app.spec.field import Paths
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.sources import Source, default_names, open_sources
from oneformer_jax.data.datasets.tfds_dataset import SCHEME, open_prepared
from oneformer_jax.data.storage.cache import local_file, local_folder
from oneformer_jax.errors import SpecError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


def num_workers(spec: Spec, split: Split) -> int | None:
    """What the spec says about the workers of a split, None where it leaves all at the defaults."""
    changed = [path for path in (f"dataset.{split}.num_workers", "dataset.workers") if spec.is_changed(path)]
    return int(spec.value(changed[0])) if changed else None


def open_dataset(spec: Spec, split: Split) -> Dataset:
    """The data set of a split, its files checked against each other and the label map.

    Raises SpecError if keys of the split are unset or contradict each other, DataError if its files cannot be used.
    """
    contiguous_id, maps = spec.dataset.contiguous_id, label_maps(spec)
    if folder := _prepared_folder(spec, split):
        return open_prepared(folder, split, contiguous_id=contiguous_id, label_maps=list(maps.values()))
    require(spec, f"dataset.{split}.annotations")
    return open_sources(sources(spec, split), contiguous_id=contiguous_id, label_maps=maps)


def has_data(spec: Spec, split: Split) -> bool:
    """Whether the spec says where the annotated images of a split are."""
    section = getattr(spec.dataset, split)
    return bool(section.annotations) or any(path.startswith(SCHEME) for path in path_list(section.images))


def _prepared_folder(spec: Spec, split: Split) -> Path | None:
    """The folder of prepared data that `images` names, which stands alone; None where it names none."""
    section = getattr(spec.dataset, split)
    key, images = f"dataset.{split}.images", path_list(section.images)
    if not any(path.startswith(SCHEME) for path in images):
        return None
    if len(images) > 1:
        raise SpecError("prepared data cannot stand in a list", where=key, hint="prepare all of it together")
    for name in ("annotations", "panoptic", "names"):
        if getattr(section, name):
            raise SpecError(
                f"a prepared data set ({images[0]}) holds its own annotations",
                where=f"dataset.{split}.{name}",
                hint=f"leave it empty, or set {key} to a folder of images",
            )
    return local_folder(images[0].removeprefix(SCHEME), what=key)


def label_maps(spec: Spec) -> dict[str, Path]:
    """The label map of each format of annotations; "*" is for those that have none of their own."""
    given = spec.dataset.label_map
    by_format = given.items() if isinstance(given, dict) else [("*", given)]
    return {name: local_file(path, what="dataset.label_map", suffix=".json") for name, path in by_format if path}


def sources(spec: Spec, split: Split) -> list[Source]:
    """The annotation files of a split with their folders: one folder is for all files, several are for one each.

    Archives are unpacked and addresses fetched. Raises DataError where that fails, SpecError: lists of different
    lengths, or a file or a name that stands twice.
    """
    section = getattr(spec.dataset, split)
    annotations = path_list(section.annotations)
    images, panoptic = (
        _one_each(getattr(section, name), len(annotations), f"dataset.{split}.{name}", f"dataset.{split}.annotations")
        for name in ("images", "panoptic")
    )
    names = list(section.names) or default_names(annotations)
    if len(names) != len(annotations):
        raise SpecError(
            f"{len(names)} names for {len(annotations)} annotation files",
            where=f"dataset.{split}.names",
            hint=f"one name for each file of dataset.{split}.annotations, or none",
        )
    for key, values in (("annotations", annotations), ("names", names)):
        if double := [value for value in values if values.count(value) > 1]:
            raise SpecError(f"'{double[0]}' stands there twice", where=f"dataset.{split}.{key}")
    return [
        Source(
            local_file(file, what=f"dataset.{split}.annotations", suffix=".json"),
            local_folder(folder, what=f"dataset.{split}.images") if folder else None,
            local_folder(pngs, what=f"dataset.{split}.panoptic") if pngs else None,
            name,
        )
        for file, folder, pngs, name in zip(annotations, images, panoptic, names, strict=True)
    ]


def path_list(paths: Paths) -> list[str]:
    """The paths of a key that holds one or several."""
    return [paths] if isinstance(paths, str) else list(paths)


def _one_each(paths: Paths, count: int, key: str, files_key: str) -> list[str]:
    """`paths` as a list of `count` entries; a single one is for all."""
    entries = path_list(paths)
    if len(entries) not in (1, count):
        raise SpecError(
            f"{len(entries)} folders for {count} annotation files",
            where=key,
            hint=f'one folder for each file of {files_key} ("" where there is none), or one for all',
        )
    return entries if len(entries) == count else entries * count
