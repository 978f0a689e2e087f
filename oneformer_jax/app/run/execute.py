"""One action inside its result folder: spec checked, experiment.yaml and status.json written whatever happens."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from oneformer_jax.app.run.failures import explained, how_to_go_on, reason
from oneformer_jax.app.run.status import LOCK, StatusFile, StatusOfOther, StatusOnScreen, only_process_in, result_folder
from oneformer_jax.app.spec import Spec, dump_yaml, load_spec, oddities, unsupported_keys
from oneformer_jax.app.spec.dotted import apply, get
from oneformer_jax.app.spec.source import Source, at_home, read_yaml
from oneformer_jax.app.spec.spec import notes
from oneformer_jax.errors import OneFormerError, SpecError
from oneformer_jax.stopping import ended_by, last_words, signal_of
from oneformer_jax.writing import remove_unfinished, write_text

if TYPE_CHECKING:
    from oneformer_jax.training.distributed import Processes


@dataclass(frozen=True)
class Run:
    """Where an action writes and reports."""

    folder: Path
    status: StatusFile
    console: Console


@contextmanager
def running(name: str, spec_path: Path, overrides: list[str] | None, console: Console) -> Iterator[tuple[Spec, Run]]:
    """The spec of an action and its run; the last line of status.json says how what is done inside ended.

    A training may have several processes: the first one of them alone prints and writes, the others only failures.

    Raises whatever is raised inside, after writing FAILURE; what a person can meet becomes a OneFormerError.
    """
    overrides = overrides or []
    try:
        spec = load_spec(spec_path, overrides)
        processes = _processes(name)
    except OneFormerError as error:
        _report_refused_spec(name, spec_path, overrides, str(error), console)
        raise
    folder = result_folder(spec.results_dir, getattr(spec, name).results_dir, name)
    is_first = processes is None or processes.is_first
    console.quiet = console.quiet or not is_first
    with only_process_in(folder) if is_first else nullcontext():
        status = StatusFile(folder, name, console) if is_first else StatusOfOther(folder, name, console)
        status.write("STARTED", f"Starting OneFormer {name}.")
        console.print(f"{name}: results in {folder}")  # libraries take seconds to load before there is more to say
        try:
            _warn_of_unsupported(unsupported_keys(spec), name, status)
            for oddity in oddities(spec):
                status.warning(oddity)
            if is_first:
                remove_unfinished(folder)
                write_text(folder / "experiment.yaml", dump_yaml(spec))
            if processes is not None:
                _join(spec, processes)
            with last_words(lambda number: status.failure(reason(ended_by(number), name))):
                yield spec, Run(folder, status, console)
            status.success()
        except BaseException as error:
            status.failure(reason(error, name))
            if signal_of(error) is not None:
                error.add_note(how_to_go_on(name, folder))
            known = explained(error, name)
            if known is None or known is error:
                raise
            raise known from error


@contextmanager
def writing_to(output: Path | None, console: Console) -> Iterator[Run]:
    """The run of an action without a spec, in the folder `output`; without one, in a new folder `predictions`,
    `predictions-2` and so on. A folder that was made here is removed where nothing comes into it.

    Raises OSError: it cannot be made; FolderInUseError: another process works in it.
    """
    made = output is None or not output.exists()
    folder = _made_new("predictions") if output is None else output
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with only_process_in(folder, "--output"):
            remove_unfinished(folder)
            yield Run(folder, StatusOnScreen(folder, console), console)
    except BaseException as error:
        if signal_of(error) is not None and not _is_empty(folder):
            error.add_note(f"what is done is in {folder}; the same command with --output {folder} starts anew there")
        raise
    finally:
        if made and _is_empty(folder):
            (folder / LOCK).unlink(missing_ok=True)
            with suppress(OSError):  # somebody else has put something there
                folder.rmdir()


def _is_empty(folder: Path) -> bool:
    return all(path.name == LOCK for path in folder.iterdir())


def _made_new(name: str) -> Path:
    """A folder here that was not there before: of two processes, each gets one."""
    for number in count(1):
        folder = Path(name if number == 1 else f"{name}-{number}")
        with suppress(FileExistsError):
            folder.mkdir()
            return folder
    raise AssertionError("numbers do not end")


def _processes(name: str) -> "Processes | None":
    """Those that train together; None: an action of one process. Loading JAX takes seconds, which a training needs."""
    if name != "train":
        return None
    from oneformer_jax.training.distributed import find_processes

    return find_processes(os.environ)


def _join(spec: Spec, processes: "Processes") -> None:
    from oneformer_jax.app.run.devices import join_processes
    from oneformer_jax.app.settings.model_choice import device_choice

    nodes = spec.train.num_nodes if spec.is_changed("train.num_nodes") else None
    join_processes(nodes, device_choice(spec, "train"), processes)


def _warn_of_unsupported(keys: list[str], name: str, status: StatusFile) -> None:
    other_actions = {"evaluate.", "inference.", "export.", "gen_trt_engine.", "quantize.", "train."} - {f"{name}."}
    if name == "automl":  # its trials train
        other_actions -= {"train."}
    why = notes()
    for key in keys:
        if not key.startswith(tuple(other_actions)):
            status.warning(f"{key} is accepted but not honoured: {why[key]}")


def _report_refused_spec(name: str, spec_path: Path, overrides: list[str], why: str, console: Console) -> None:
    """FAILURE in the result folder that the refused spec names, as far as it can be determined: whoever watches it is
    waiting."""
    try:
        source = read_yaml(spec_path)
    except SpecError:
        source = Source({})
    for text in overrides:
        apply(source, text)
    folders = [at_home(get(source.data, path)) for path in ("results_dir", f"{name}.results_dir")]
    parent, own = (text if isinstance(text, str) and "${" not in text and text != "???" else "" for text in folders)
    with suppress(OneFormerError, OSError, ValueError):  # the error of the spec is the one to report
        folder = result_folder(parent, own, name)
        with only_process_in(folder):
            status = StatusFile(folder, name, console)
            status.write("STARTED", f"Starting OneFormer {name}.")
            status.failure(why)
