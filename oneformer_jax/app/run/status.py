"""The result folder of an action, in which one process at a time works, and its status.json: JSON lines with TAO's
fields, in TAO's order.

TAO repeats the last `kpi` on every later line. Here a value stands on the line of the event that measured it, and the
SUCCESS line repeats the last value of every name: each line can be read alone, and no value seems measured twice.
"""

import errno
import fcntl
import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from oneformer_jax.data.storage.addresses import redacted
from oneformer_jax.errors import OneFormerError

State = Literal["STARTED", "RUNNING", "SUCCESS", "FAILURE"]
Verbosity = Literal["INFO", "WARNING", "ERROR"]
LOCK = ".lock"
WITHOUT_LOCKS = (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS)
TAO_NAMES = {"pixel_accuracy": "ACC_all"}


def result_folder(results_dir: str, action_results_dir: str, action: str) -> Path:
    """`<action>.results_dir` if set, else `<results_dir>/<action>`; created.

    Raises OneFormerError if neither is set or the folder cannot be made.
    """
    if not action_results_dir and not results_dir:
        raise OneFormerError("results_dir is not set", hint="set results_dir=FOLDER in the spec or on the command line")
    folder = Path(action_results_dir) if action_results_dir else Path(results_dir) / action
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OneFormerError(
            f"result folder cannot be made: {error.strerror}",
            where=str(folder),
            hint="set results_dir to a folder that can be written",
        ) from error
    return folder


class FolderInUseError(OneFormerError):
    """Another process works in this result folder."""


@contextmanager
def only_process_in(folder: Path, named_by: str = "results_dir") -> Iterator[None]:
    """Holds the folder's lock file, which the system gives free however this process ends. `named_by`: the key or
    option that names the folder, for messages.

    Raises FolderInUseError that names the process which holds it, OSError when the file cannot be opened. A file system
    without locks is used without one.
    """
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise FolderInUseError(
                f"in use by {file.read().strip() or 'another process'}",
                where=str(folder),
                hint=f"wait until it ends, stop it, or use another {named_by}",
            ) from None
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
        _name_holder(file.fileno(), f"process {os.getpid()} on {platform.node()}\n")
        try:
            yield
        finally:
            _name_holder(file.fileno(), "")


def holder(folder: Path) -> str:
    """The process that holds the folder's lock file, "" where none does: what a dead one has left there is not held."""
    path = folder / LOCK
    name = path.read_text(errors="replace") if path.is_file() else ""
    if not name:
        return ""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return name.strip()
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
    return ""


def read_status(path: Path) -> list[dict[str, Any]]:
    """The lines of a status.json, [] where there is none; one that is half written or damaged is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        with suppress(ValueError, RecursionError):
            line = json.loads(text)
            lines += [line] * isinstance(line, dict)
    return lines


class StatusFile:
    """Appends one JSON object per event; the last line says how the action ended."""

    def __init__(self, folder: Path, action: str, console: Console) -> None:
        self.path = folder / "status.json"
        self._console = console
        self._ending = f"{action.capitalize()} finished successfully."
        self._kpi: dict[str, Any] = {}

    def write(
        self,
        state: State,
        message: str,
        *,
        verbosity: Verbosity = "INFO",
        kpi: dict[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        """One line: `fields`, then date, time, status, verbosity, message and, where given, `kpi` (NaN becomes null).

        Raises OSError when it cannot be written; the file then is as it was.
        """
        now = time.localtime()
        line = fields | {
            "date": f"{now.tm_mon}/{now.tm_mday}/{now.tm_year}",
            "time": f"{now.tm_hour}:{now.tm_min}:{now.tm_sec}",
            "status": state,
            "verbosity": verbosity,
            "message": redacted(message),
        }
        if kpi:
            kpi = {
                name: value if not isinstance(value, float) or math.isfinite(value) else None
                for name, value in kpi.items()
            }
            self._kpi |= kpi
            line["kpi"] = kpi
        _append(self.path, json.dumps(line, allow_nan=False) + "\n")

    def warning(self, text: str) -> None:
        """One line for the person at the screen, kept in the file too."""
        self._console.print(f"warning: {text}", style="yellow")
        self.write("RUNNING", text, verbosity="WARNING")

    def say(self, text: str) -> None:
        """One line for the person at the screen and for the file."""
        self._console.print(text)
        self.write("RUNNING", text)

    def end_with(self, message: str) -> None:
        """What the SUCCESS line shall say instead of that the action finished."""
        self._ending = message

    def success(self) -> None:
        """The last line of an action that did what was asked, with the last value of every kpi."""
        self.write("SUCCESS", self._ending, kpi=self._kpi)

    def failure(self, reason: str) -> None:
        """The last line of an action that did not. Never raises: the failure itself must stay what is reported."""
        try:
            self.write("FAILURE", reason, verbosity="ERROR")
        except OSError as error:
            self._console.print(f"warning: FAILURE not written: {self.path}: {error.strerror}", style="yellow")


class StatusOfOther(StatusFile):
    """That of a process beside the first one, which writes the file: only a failure is added to it."""

    def write(self, *arguments: Any, **fields: Any) -> None:
        """Nothing."""

    def failure(self, reason: str) -> None:
        """A line, in case that the first process can no longer write one."""
        if " was interrupted (" not in reason:
            StatusFile(self.path.parent, "", self._console).failure(f"on {platform.node()}: {reason}")


class StatusOnScreen(StatusFile):
    """That of an action without a spec, which keeps none: what is told is told the person at the screen. `path` is the
    folder of its results, for messages."""

    def __init__(self, folder: Path, console: Console) -> None:
        super().__init__(folder, "", console)
        self.path = folder

    def write(self, *arguments: Any, **fields: Any) -> None:
        """Nothing."""

    def failure(self, reason: str) -> None:
        """Nothing: whoever raised it is heard."""


class EpochLines:
    """TAO's two lines at the end of each epoch. Epochs count from 0, `step` counts the updates that are done, `shift`
    those of them that belong to no epoch of this length (see `training.loop.LoopSettings`)."""

    def __init__(
        self,
        status: StatusFile,
        *,
        epochs: int,
        steps_per_epoch: int,
        total_steps: int,
        start: int,
        shift: Fraction | int = 0,
    ) -> None:
        self._status = status
        self._epochs, self._steps_per_epoch, self._total_steps = epochs, steps_per_epoch, total_steps
        self._since, self._since_step, self._shift = time.monotonic(), start, shift

    def __call__(self, step: int, loss: float) -> None:
        """`step` updates are done and an epoch or the run ended; `loss` is the mean since the last call."""
        now = time.monotonic()
        seconds_per_step = (now - self._since) / max(step - self._since_step, 1)
        self._since, self._since_step = now, step
        self._status.write(
            "RUNNING",
            "Training loop in progress",
            epoch=int((step - 1 - self._shift) // self._steps_per_epoch),
            step=step,
            max_epoch=self._epochs - 1,
            max_step=self._total_steps,
            time_per_epoch=_duration(seconds_per_step * self._steps_per_epoch),
            time_per_step=_duration(seconds_per_step),
            eta=_duration(seconds_per_step * (self._total_steps - step)),
        )
        self._status.write("RUNNING", "Train metrics generated.", kpi={"train_loss": loss})


def kpi(metrics: Mapping[str, Any], *, prefix: str = "") -> dict[str, float | None]:
    """The scores in the content of a metrics.json (see `evaluation.report`), None where not defined.

    `mIoU`, `ACC_all`, PQ and AP with `prefix`; without it, as in TAO, `IoU_<class>` where classes are there and the
    scores of single data sets (`mIoU/<name>`, `ACC/<name>`).
    """
    scores = {}
    for name, value in metrics.items():
        if value is None or isinstance(value, float):
            score, slash, dataset = name.partition("/")
            if slash:
                scores[f"{TAO_NAMES.get(score, score).removesuffix('_all')}/{dataset}"] = value
            else:
                scores[prefix + TAO_NAMES.get(score, score)] = value
    for name, row in metrics.get("per_class", {}).items():
        if "IoU" in row:
            scores[f"IoU_{name.replace(' ', '_')}"] = row["IoU"]
    return scores


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=seconds))


def _append(path: Path, line: str) -> None:
    """All of the line or, on a full disk, nothing of it: half a line would spoil the next one."""
    with path.open("ab", buffering=0) as file:
        start = file.seek(0, os.SEEK_END)
        data = line.encode()
        try:
            while data:
                data = data[file.write(data) :]
        except OSError as error:
            file.truncate(start)
            error.filename = str(path)  # a write does not say it
            raise


def _name_holder(descriptor: int, text: str) -> None:
    with suppress(OSError):  # a full disk: the lock holds without a name
        os.ftruncate(descriptor, 0)
        os.write(descriptor, text.encode())
