"""Labels of any kind that is read to a data set, a spec that trains on it and a page about both."""

import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from oneformer_jax.app.actions.importing.models import gigabytes
from oneformer_jax.app.actions.importing.page import page, samples
from oneformer_jax.app.actions.importing.ready_spec import Imported, ReadySpec, ready_spec
from oneformer_jax.app.run.opened import checked_datasets
from oneformer_jax.app.run.waiting import waiting
from oneformer_jax.app.settings.data import splits_with_data
from oneformer_jax.app.spec import Spec, load_spec, to_yaml
from oneformer_jax.data.datasets.dataset import listing
from oneformer_jax.data.datasets.files import SPLITS
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.data.geometry import Size
from oneformer_jax.data.importers.division import divided
from oneformer_jax.data.importers.formats import named, recognised
from oneformer_jax.data.importers.pairs import SPLITS as WORDS_OF_SPLITS
from oneformer_jax.data.importers.reader import Item, Options, Reader
from oneformer_jax.data.importers.written import ANNOTATIONS, IMAGES, PANOPTIC, Counts, write_split
from oneformer_jax.data.storage.addresses import is_address
from oneformer_jax.data.storage.cache import local_folder
from oneformer_jax.data.storage.folders import innermost
from oneformer_jax.errors import DataError, OneFormerError
from oneformer_jax.writing import appearing_in, new_folder, write_json, write_text

SPEC, PAGE, LABEL_MAP = "spec.yaml", "import.html", "label_map.json"


@dataclass(frozen=True)
class ImportRun:
    """What is imported and how: see the command."""

    source: str
    folder: Path
    format: str | None = None
    options: Options = field(default_factory=Options)
    val: float = 0.1
    copy: bool = False
    memory: str | None = None
    overwrite: bool = False


def import_data(run: ImportRun, console: Console) -> None:
    """Writes `DEST/{train,val}/`, the label map, `spec.yaml` and `import.html` together.

    Raises OneFormerError: DEST is there, the source has no labels that can be used, or the disk takes no more; DEST is
    then as it was.
    """
    memory = gigabytes(run.memory) if run.memory else None
    folder = run.folder.absolute()
    if not is_address(run.source):
        _refuse_inside(Path(run.source).expanduser(), folder)
    _refuse_taken(folder, overwrite=run.overwrite)
    source = innermost(local_folder(run.source, what="SOURCE"), named={*WORDS_OF_SPLITS, "images", "masks", "labels"})
    format, why = (named(run.format), "as --format says") if run.format else recognised(source)
    console.print(f"{run.source}: {format.title}: {why}", markup=False)
    if unheeded := run.options.given - format.options:
        hint = f"the format {format.name} has {', '.join(map(_option, sorted(format.options))) or 'no such options'}"
        raise OneFormerError("is of no use here", where=_option(min(unheeded)), hint=hint)
    is_temporary = is_address(run.source) or not Path(run.source).expanduser().is_dir()
    with _writing(folder) as fresh:
        with waiting("looking through the labels", console) as progress:
            reader = format.open(source, run.options, progress)
        guesses = [*reader.guesses]
        items = divided(reader.items, run.val, guesses)
        splits = {
            split: _written(fresh / split, reader, split, items[split], run.copy or is_temporary, console)
            for split in items
        }
        left_out = [*reader.left_out, *(error for counts in splits.values() for error in counts.left_out)]
        splits = _that_show_classes(splits, fresh, guesses)
        if "train" not in splits:
            reasons = listing("nothing is left to train on:", left_out) if left_out else "no picture shows a class"
            raise DataError(reasons, where=run.source)
        write_json(fresh / LABEL_MAP, reader.categories.to_json(), indent=1)
        spec = _spec(Imported(folder, reader.categories, splits, reader.regions, reader.has_objects), memory, console)
        write_text(fresh / SPEC, _commented(run, spec))
        notes = [note for counts in splits.values() for note in counts.notes]
        panoptic = fresh / "train" / PANOPTIC if reader.regions else None
        dataset = open_sources([Source(fresh / "train" / ANNOTATIONS, fresh / "train" / IMAGES, panoptic)])
        content = page(
            source=run.source,
            read_as=f"{format.title}: {why}",
            splits=splits,
            categories=reader.categories,
            guesses=guesses,
            reasons=spec.reasons,
            left_out=left_out,
            notes=notes,
            pictures=list(samples(dataset)),
            command=shlex.join(["oneformer", "train", "--spec", str(folder / SPEC)]),
        )
        write_text(fresh / PAGE, content)
    for title, errors in (("files left out:", left_out), ("labels left out:", notes)):
        if errors:
            console.print(listing(f"{len(errors)} {title}", errors), style="yellow", markup=False)
    for sentence in [*guesses, *spec.reasons]:
        console.print(sentence, markup=False)
    _check(folder, console)
    for split, counts in splits.items():
        numbers = f"{counts.sizes.total()} pictures, {counts.segments.total()} segments"
        console.print(f"{split}: {numbers}: {folder / split}", markup=False)
    console.print(f"look at {folder / PAGE}", markup=False)
    console.print(f"train with --spec {folder / SPEC}", markup=False)


def _that_show_classes(splits: Mapping[str, Counts], fresh: Path, guesses: list[str]) -> dict[str, Counts]:
    """The splits that can be trained on or scored; the others go."""
    shown = {split: counts for split, counts in splits.items() if counts.segments.total()}
    for split in (split for split in splits if split not in shown):
        shutil.rmtree(fresh / split)
        hint = " Nothing validates then: --val 0.3 chooses others too." if split == "val" else ""
        guesses.append(f"No picture of {split} can be used and shows a class: {split} is left out.{hint}")
    return shown


def _check(folder: Path, console: Console) -> None:
    """As a training would. Raises DataError: pictures whose pixels cannot be read are there."""
    try:
        checked_datasets(splits_with_data(load_spec(folder / SPEC)), console)
    except DataError as error:
        hint = f"oneformer inspect data --spec {folder / SPEC} --fix FOLDER writes a data set without them"
        raise DataError(f"{error}", where="of what was imported", hint=hint) from error


def _option(name: str) -> str:
    return f"--{name}"


def _refuse_inside(source: Path, folder: Path) -> None:
    one, other = source.resolve(), folder.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise OneFormerError(
            f"SOURCE ({source}) and DEST lie in one another", where=str(folder), hint="name a folder beside SOURCE"
        )


def _refuse_taken(folder: Path, *, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise OneFormerError("this is a file, expected a folder", where=str(folder), hint="name another DEST")
    if _is_free(folder):
        return
    if not overwrite:
        hint = "name another DEST, or add --overwrite, which replaces what an import wrote there"
        raise OneFormerError("the folder is not empty", where=str(folder), hint=hint)
    if not (folder / PAGE).is_file():
        hint = "name another DEST: only what an import wrote is replaced"
        raise OneFormerError(f"the folder holds no {PAGE}, so no import wrote it", where=str(folder), hint=hint)


def _is_free(folder: Path) -> bool:
    return not folder.is_dir() or not any(folder.iterdir())


@contextmanager
def _writing(folder: Path) -> Iterator[Path]:
    """A hidden folder whose content is that of `folder` when the block ends; an earlier import's goes."""
    if _is_free(folder):
        with new_folder(folder) as fresh:
            yield fresh
        return
    with appearing_in(folder, PAGE) as fresh:
        yield fresh
        now = [split for split in SPLITS if (fresh / split).exists()]
    for split in SPLITS:
        if split not in now:
            shutil.rmtree(folder / split, ignore_errors=True)


def _written(folder: Path, reader: Reader, split: str, items: list[Item], copy: bool, console: Console) -> Counts:
    with waiting(f"importing {split}", console, len(items)) as progress:
        return write_split(folder, reader, items, copy=copy, progress=progress)


def _spec(data: Imported, memory: float | None, console: Console) -> ReadySpec:
    if memory is None:
        return ready_spec(data, None, lambda spec, batch, size: 0.0)
    from oneformer_jax.app.actions.model.cost import estimated_on_gpu
    from oneformer_jax.app.settings.training import training_recipe

    def estimate(spec: Spec, batch: int, size: Size) -> float:
        return sum(estimated_on_gpu(training_recipe(spec), batch, size).values()) / 2**30

    with waiting("estimating which model fits the memory (nothing is run)", console):
        return ready_spec(data, memory, estimate)


def _commented(run: ImportRun, spec: ReadySpec) -> str:
    lines = [f"Written by `oneformer import {run.source}`.", *spec.reasons]
    return "".join(f"# {' '.join(line.split())}\n" for line in lines) + to_yaml(spec.values)
