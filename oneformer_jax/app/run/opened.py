"""What an action works on, opened: data sets, checked before long work, with every problem of all splits in one error;
and the model that an evaluation or an inference runs, with JAX only for a checkpoint."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.run.waiting import waiting
from oneformer_jax.checkpoints.agreement import Facts, Use, differences, settle
from oneformer_jax.data.datasets.categories import SAME_ORDER, Categories, check_agreement, load_label_map
from oneformer_jax.data.datasets.check_files import Findings, Passes, check_files, version_of
from oneformer_jax.data.datasets.dataset import Dataset, Problems, listing
from oneformer_jax.data.datasets.files import DatasetFiles, Split, open_dataset
from oneformer_jax.data.storage.addresses import is_address
from oneformer_jax.data.storage.cache import cache_folder, local_file, optional_cache
from oneformer_jax.devices import nvidia_gpus
from oneformer_jax.errors import CheckpointError, DataError, SpecError
from oneformer_jax.evaluation.backend import CompilingBackend
from oneformer_jax.evaluation.evaluator import Scoring
from oneformer_jax.postprocess.results import Thresholds
from oneformer_jax.predict.exported import CPU, how_to_use_gpus, is_exported
from oneformer_jax.predict.predictor import Predictor, load_model
from oneformer_jax.predict.runs import ModelChoice, Stated
from oneformer_jax.tasks import RICHEST_FIRST, Task


def checked_datasets(
    splits: Sequence[DatasetFiles], console: Console, warn: Callable[[str], None] | None = None
) -> dict[Split, Dataset]:
    """Opens `splits` and checks their files, unless they passed before and have not changed since. `warn` is told what
    is left out of them; without it, the console is.

    Raises DataError with all that is wrong.
    """
    problems = Problems()
    datasets = open_splits(splits, problems)
    for number, (split, dataset) in enumerate(datasets.items()):
        if any(dataset is other for other in list(datasets.values())[:number]):
            continue
        warn_of_notes(dataset, warn or partial(_warn, console))
        version = version_of(dataset)
        if passes().holds(version, strict=False):
            console.print(f"{split}: the files were checked before and have not changed")
        else:
            problems.errors += check_split(split, dataset, console, version=version, strict=False).errors
    problems.raise_all()
    return datasets


def training_data(
    train: DatasetFiles, validation: Scoring | None, console: Console, warn: Callable[[str], None]
) -> tuple[Dataset, Dataset | None]:
    """The checked data sets of training and validation. Raises OneFormerError where they have different categories."""
    found = checked_datasets([train, validation.data] if validation else [train], console, warn)
    dataset, validated = found["train"], found.get("val")
    if validated is None:
        console.print("dataset.val is not set: no validation, and so no best checkpoint")
    else:
        check_validation(dataset, validated)
    return dataset, validated


def check_validation(train: Dataset, validated: Dataset) -> None:
    """Raises DataError where the two have different categories."""
    pairs = (train.categories, "dataset.train"), (validated.categories, "dataset.val")
    hint = f"{SAME_ORDER}, and isthing; a label map (dataset.label_map) says it for both"
    check_agreement(*pairs, "things", where=validated.where, hint=hint)


def open_model(choice: ModelChoice, usual_batch_size: int, run: Run) -> tuple[Predictor, int]:
    """The model with the thresholds that count, and the batch size of all its devices together. `usual_batch_size` is
    that of one device, for a choice that gives none. What does not count is a warning. Raises OneFormerError."""
    section, status = choice.devices.section, run.status
    if choice.unused:
        status.warning(f"{section}.trt_engine and {section}.checkpoint are both set: the engine is used")
    if not choice.is_named:
        choice = replace(choice, path=str(_trained(choice.path, section, status)))
    if is_exported(choice.path):
        if choice.devices.count > 1:
            raise SpecError("an engine runs on one device", where=f"{section}.num_gpus", hint="set it to 1")
        device = choice.devices.indices[0] if choice.devices.indices else 0
        model = load_model(choice.path, device_id=device, stated=choice.stated)
        run.status.say(f"{choice.path} runs with {model.provider}")
        if model.provider == CPU and nvidia_gpus():
            run.status.warning(f"this machine has a GPU, but ONNX Runtime uses the CPU: {how_to_use_gpus()}")
        _tell_of_statistics(model, choice, run)
        model = replace(model, thresholds=counting_thresholds(model.thresholds, choice.stated, choice.path, run))
        return model, model.batch_size(choice.batch_size, usual_batch_size)

    from oneformer_jax.app.run.devices import mesh_of
    from oneformer_jax.app.settings.model import contradiction
    from oneformer_jax.models.compiled_programs import enable_compilation_cache
    from oneformer_jax.predict.jax_backend import JaxBackend

    enable_compilation_cache()
    mesh = mesh_of(choice.devices, status)
    model = load_model(choice.path, mesh=mesh, precision=choice.precision)
    assert isinstance(model.backend, JaxBackend)
    if different := contradiction(choice.stated.architecture, model.backend.config):
        status.warning(different)
    _tell_of_statistics(model, choice, run)
    model = replace(model, thresholds=counting_thresholds(model.thresholds, choice.stated, choice.path, run))
    return model, model.batch_size(choice.batch_size, usual_batch_size) * mesh.size


def _trained(folder: str, section: str, status: StatusFile) -> Path:
    """The checkpoint that a training left in a folder. Raises SpecError: there is none, and the spec names none."""
    from oneformer_jax.checkpoints.read import find_checkpoint

    try:
        found = find_checkpoint(folder)
    except CheckpointError as error:
        what = f"no value, and the spec's training has none that can be used: {error.where}: {error.what}"
        raise SpecError(what, where=f"{section}.checkpoint", hint=f"{error.hint}; or set this key") from error
    status.say(f"{section}.checkpoint is not set: {found} is used, which was trained here")
    return found


def usual_task(path: str) -> Task:
    """The task that tells most of those that a checkpoint was trained for; panoptic where that is not known."""
    if is_exported(path) or is_address(path):
        return RICHEST_FIRST[0]
    from oneformer_jax.checkpoints import read

    try:
        spec = read.load_description(read.find_checkpoint(path)).spec
    except CheckpointError:  # weights of another code base, or what cannot be opened, as is said then
        return RICHEST_FIRST[0]
    chances = spec.get("dataset", {}).get("task_prob_train", {})
    return next((task for task in RICHEST_FIRST if chances.get(task, 0) > 0), RICHEST_FIRST[0])


def compiling(model: Predictor) -> str:
    """What to say while shapes of batches are compiled, "" where none is."""
    if not isinstance(model.backend, CompilingBackend):
        return ""
    done, known = model.backend.compiled
    return f"compiling {done + 1} of {known} shapes" if done < known else ""


def _tell_of_statistics(model: Predictor, choice: ModelChoice, run: Run) -> None:
    """Says that the spec's have no effect where they are others than the model's."""
    known, stated = Facts(statistics=model.statistics), Facts(statistics=choice.stated.statistics)
    agree("infer", known, stated, choice.path, run)


def counting_thresholds(known: Thresholds, stated: Stated, where: str, run: Run) -> Thresholds:
    """The thresholds of a model, but for those that the spec states; says which they are."""
    counting = Thresholds(**vars(known) | dict(stated.thresholds))
    agree("infer", Facts(thresholds=known), Facts(thresholds=counting), where, run)
    run.console.print(f"thresholds: {counting}")
    return counting


def counting_categories(known: Categories, stated: Stated, where: str, run: Run) -> Categories:
    """The classes of a model with the things, colours and ids of the label map that the spec names, if it names one.

    Raises CheckpointError where none of the label maps has the classes of the model in their order.
    """
    found = []
    for location in stated.label_maps:
        if not is_address(location) and not Path(location).exists():
            run.status.warning(f"dataset.label_map: {location} is not there: the classes of the model are used")
            continue
        path = local_file(location, what="dataset.label_map", suffix=".json")
        found.append(load_label_map(path, contiguous_id=stated.contiguous_id, like=known))
    if not found:
        return known
    fitting = [label_map for label_map in found if label_map.names == known.names]
    chosen = (fitting or found)[0]
    if not known.are_numbered or len(chosen) != len(known):
        agree("infer", Facts(known), Facts(chosen), where, run)
    return chosen


def agree(use: Use, was: Facts, now: Facts, where: str, run: Run) -> None:
    """Says what differs between a checkpoint and what it is used with, or refuses it (`checkpoints.agreement`)."""

    def say(text: str) -> None:
        run.console.print(text)

    settle(differences(use, was, now), where=where, say=say, warn=run.status.warning)


LISTED = 20
"""Images that the message at the end names."""


class Skipped:
    """The images that an action leaves out, one by one, because they cannot be used: the others are done all the same.
    `reasons` say what is wrong with each."""

    def __init__(self, status: StatusFile) -> None:
        self._status, self.reasons = status, dict[str, None]()

    def __call__(self, error: DataError) -> None:
        """Says so, once."""
        reason = f"{error.where}: {error.what}"
        if reason not in self.reasons:
            self.reasons[reason] = None
            self._status.warning(f"skipped: {reason}")

    @contextmanager
    def noted(self) -> Iterator[None]:
        """What is wrong with an image ends the block, not the caller."""
        try:
            yield
        except DataError as error:
            self(error)

    def raise_any(self, done: str) -> None:
        """Raises DataError where there are any, since what was asked for is not done; `done` says what is."""
        if self.reasons:
            number, reasons = len(self.reasons), list(self.reasons)[:LISTED]
            more = [f"and {number - LISTED} more, listed above"] * (number > LISTED)
            what = f"{number} image{'s' * (number > 1)} could not be used and had to be skipped; {done}:"
            raise DataError(
                "\n  ".join([what, *reasons, *more]),
                hint="mend or remove what is listed, then run the same command again",
            )


def open_splits(splits: Sequence[DatasetFiles], problems: Problems) -> dict[Split, Dataset]:
    """The splits that can be opened; what is wrong goes to `problems`. Splits of the same files are one data set."""
    datasets: dict[Split, Dataset] = {}
    for files in splits:
        with problems.collected():
            same = [other for other in splits if other.split in datasets and _same_files(other, files)]
            dataset = datasets[same[0].split] if same else open_dataset(replace(files, num_classes=None))
            datasets[files.split] = dataset
            if files.num_classes is not None:
                dataset.check_num_classes(files.num_classes)  # what else is wrong is of interest all the same
                if files.split == "train" and (unused := files.num_classes - len(dataset.categories)):
                    key = f"model.sem_seg_head.num_classes: {len(dataset.categories)}"
                    text = f"{unused} of the model's {files.num_classes} classes are none of the data's: set {key}"
                    dataset.warnings = (*dataset.warnings, text)
    return datasets


def _same_files(one: DatasetFiles, other: DatasetFiles) -> bool:
    """Whether two splits are read from the same files in the same way; prepared data has splits of its own."""
    return not one.prepared and replace(one, split=other.split) == other


def warn_of_notes(dataset: Dataset, warn: Callable[[str], None]) -> None:
    """Says what was read otherwise than the annotation files have it, what was left out, and what else is against
    them."""
    if dataset.notes:
        warn(listing("annotations that are not as the format says:", dataset.notes))
    for text in dataset.warnings:
        warn(text)


def _warn(console: Console, text: str) -> None:
    console.print(text, style="yellow")


def check_split(split: Split, dataset: Dataset, console: Console, *, version: str, strict: bool) -> Findings:
    """Checks the files with a progress bar, prints the warnings, and remembers a pass."""
    started = time.monotonic()
    with waiting(f"checking {split}", console, len(dataset)) as progress:
        findings = check_files(dataset, strict=strict, progress=progress)
    if findings.warnings:
        _warn(console, listing(f"{split}: {len(findings.warnings)} warnings", findings.warnings))
    outcome = f"{len(findings.errors)} errors" if findings.errors else "no error"
    headers = "" if dataset.shared_files else f"headers of {len(dataset)} images and "
    console.print(
        f"{split}: {headers}pixels of {findings.images_read} checked in {time.monotonic() - started:.1f} s, {outcome}",
    )
    if not findings.errors:
        passes().add(version, strict=strict, where=dataset.where)
    return findings


def passes() -> Passes:
    """Where passes are remembered."""
    return Passes(optional_cache(cache_folder() / "preflight"))
