"""`inspect data --fix`: annotations without what cannot be used, a spec that trains on them, and a report."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from oneformer_jax.app.run.opened import checked_datasets
from oneformer_jax.app.run.waiting import waiting
from oneformer_jax.app.settings.data import splits_with_data
from oneformer_jax.app.spec import Spec, given_values, load_spec, to_yaml
from oneformer_jax.app.spec.dotted import put
from oneformer_jax.app.spec.field import plain
from oneformer_jax.app.spec.source import absolute
from oneformer_jax.data.datasets.dataset import listing
from oneformer_jax.data.datasets.files import DatasetFiles, local_label_maps, local_sources
from oneformer_jax.data.importers.cleaned_copy import Cleaned, write_cleaned
from oneformer_jax.data.storage.addresses import redacted
from oneformer_jax.errors import OneFormerError
from oneformer_jax.writing import new_folder, write_text

SPEC, REPORT = "spec.yaml", "report.txt"


def write_cleaned_data(spec_path: Path, overrides: list[str], folder: Path, console: Console) -> None:
    """Writes cleaned annotations of every split, a spec that names them and a report to a new folder. Images and PNGs
    stay where they are.

    Raises OneFormerError: the folder is not empty, or what is wrong concerns whole files; nothing is overwritten.
    """
    spec = load_spec(spec_path, overrides)
    splits = splits_with_data(spec)
    if folder.exists() and not folder.is_dir():
        what, hint = "this is a file, expected a new folder", "name another one: nothing is overwritten"
        raise OneFormerError(what, where=str(folder), hint=hint)
    if folder.exists() and any(folder.iterdir()):
        raise OneFormerError(
            "the folder is not empty", where=str(folder), hint="name a new one: nothing is overwritten"
        )
    folder = folder.absolute()
    values, report, screen = given_values(spec), list[str](), list[str]()
    for path in _locations(spec):
        put(values, path, absolute(plain(spec.value(path))))
    with new_folder(folder) as fresh:
        for files in splits:
            if files.prepared:
                report.append(f"{files.split}: prepared data is as it was prepared, and stays")
                screen.append(report[-1])
                continue
            written = _copies(files, fresh, console)
            copies = [replace(copy, path=folder / copy.path.relative_to(fresh)) for copy in written]
            put(values, f"dataset.{files.split}.annotations", [str(copy.path) for copy in copies])
            put(values, f"dataset.{files.split}.names", [source.name for source in files.sources])
            for copy in copies:
                report += _lines(files.split, copy)
                screen += _summary(files.split, copy)
        put(values, "results_dir", str(folder / "results"))  # the spec's own may hold what the data of before gave
        write_text(fresh / SPEC, to_yaml(redacted(values)))
        write_text(fresh / REPORT, "\n".join(report) + "\n")
    for line in screen:
        console.print(line)
    checked_datasets(splits_with_data(load_spec(folder / SPEC)), console)
    console.print(f"report: {folder / REPORT}")
    console.print(f"train with --spec {folder / SPEC}")


def _copies(files: DatasetFiles, folder: Path, console: Console) -> Iterator[Cleaned]:
    sources, maps = local_sources(files), local_label_maps(files)
    for number, source in enumerate(sources):
        name = "annotations.json" if len(sources) == 1 else f"annotations_{number}.json"
        with waiting(f"reading {files.split}", console) as progress:
            yield write_cleaned(
                source,
                folder / files.split / name,
                contiguous_id=files.contiguous_id,
                label_maps=maps,
                progress=progress,
            )


def _headline(split: str, copy: Cleaned) -> str:
    return f"{split}: {copy.images} of {copy.all_images} images, {copy.segments} segments: {copy.path}"


def _summary(split: str, copy: Cleaned) -> Iterator[str]:
    """What the screen says of a copy: the first of each kind, and how many more."""
    yield _headline(split, copy)
    for title, errors in (("changed:", copy.notes), ("left out:", copy.left_out), ("to look at:", copy.warnings)):
        if errors:
            yield listing(title, errors)


def _lines(split: str, copy: Cleaned) -> Iterator[str]:
    """The report on a copy: what is there, and each thing that is not."""
    yield _headline(split, copy)
    for title, errors in (("changed", copy.notes), ("left out", copy.left_out), ("to look at", copy.warnings)):
        for error in errors:
            yield f"  {title}: {str(error).splitlines()[0]}"


def _locations(spec: Spec) -> Iterator[str]:
    """The keys that lead to data, where they are set."""
    paths = [f"dataset.{split}.{name}" for split in ("train", "val", "test") for name in ("images", "panoptic")]
    yield from (path for path in (*paths, "dataset.label_map") if spec.value(path))
