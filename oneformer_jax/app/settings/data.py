"""The `dataset` section of a spec to the files of its splits. Nothing is opened here."""

from oneformer_jax.app.spec import Spec, require
from oneformer_jax.app.spec.dataset_keys import Split as SplitKeys
from oneformer_jax.app.spec.field import Paths, path_list
from oneformer_jax.data.datasets.files import SPLITS, DatasetFiles, SourceFiles, Split
from oneformer_jax.data.datasets.sources import default_names
from oneformer_jax.data.storage.addresses import PREPARED
from oneformer_jax.errors import SpecError


def num_workers(spec: Spec, split: Split) -> int | None:
    """What the spec says about the workers of a split, None where it leaves all at the defaults."""
    changed = [path for path in (f"dataset.{split}.num_workers", "dataset.workers") if spec.is_changed(path)]
    return int(spec.value(changed[0])) if changed else None


def splits_with_data(spec: Spec) -> list[DatasetFiles]:
    """The files of every split that has any, for the model of the spec. Raises SpecError where there is none."""
    splits = [split for split in SPLITS if getattr(spec.dataset, split).has_data]
    if not splits:
        require(spec, "dataset.train.annotations")
    return [dataset_files(spec, split, num_classes=spec.model.sem_seg_head.num_classes) for split in splits]


def dataset_files(spec: Spec, split: Split, *, num_classes: int | None = None) -> DatasetFiles:
    """The files of a split. Raises SpecError if keys of the split are unset or contradict each other."""
    section, given = getattr(spec.dataset, split), spec.dataset.label_map
    by_format = given.items() if isinstance(given, dict) else [("*", given)]
    prepared = _prepared_folder(section, split)
    if not prepared and not section.has_masks:
        require(spec, f"dataset.{split}.annotations")
    if not prepared and not section.annotations:
        require(spec, "dataset.label_map")
    return DatasetFiles(
        split,
        sources=() if prepared else _sources(section, split),
        prepared=prepared,
        label_maps={name: path for name, path in by_format if path},
        contiguous_id=spec.dataset.contiguous_id,
        num_classes=num_classes,
        on_bad_annotation=spec.dataset.on_bad_annotation,
    )


def _prepared_folder(section: SplitKeys, split: Split) -> str:
    """The folder of prepared data that `images` names, which stands alone; "" where it names none."""
    key, images = f"dataset.{split}.images", path_list(section.images)
    if not any(path.startswith(PREPARED) for path in images):
        return ""
    if len(images) > 1:
        raise SpecError("prepared data cannot be part of a list", where=key, hint="prepare all of it together")
    for name in ("annotations", "panoptic", "names"):
        if getattr(section, name):
            raise SpecError(
                f"a prepared data set ({images[0]}) contains its own annotations",
                where=f"dataset.{split}.{name}",
                hint=f"leave it empty, or set {key} to a folder of images",
            )
    return images[0].removeprefix(PREPARED)


def _sources(section: SplitKeys, split: Split) -> tuple[SourceFiles, ...]:
    """The annotation files with their folders: one folder is for all files, several are for one each."""
    annotations = path_list(section.annotations)
    if section.has_masks:
        annotations = [""] * max(len(path_list(section.images)), len(path_list(section.panoptic)))
    images, panoptic = (
        _one_each(getattr(section, name), len(annotations), f"dataset.{split}.{name}", f"dataset.{split}.annotations")
        for name in ("images", "panoptic")
    )
    names = list(section.names) or default_names(annotations if any(annotations) else panoptic)
    if len(names) != len(annotations):
        raise SpecError(
            f"{len(names)} names for {len(annotations)} annotation files",
            where=f"dataset.{split}.names",
            hint=f"one name for each file of dataset.{split}.annotations, or none",
        )
    files = ("annotations", annotations) if any(annotations) else ("panoptic", panoptic)
    for key, values in (files, ("names", names)):
        if double := [value for value in values if values.count(value) > 1]:
            raise SpecError(f"'{double[0]}' is listed twice", where=f"dataset.{split}.{key}")
    return tuple(SourceFiles(*fields) for fields in zip(annotations, images, panoptic, names, strict=True))


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
