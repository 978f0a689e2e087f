"""A workspace is a folder of jobs; a job is a folder with its record, spec, log and results.

<workspace>/<action>-<number>/
    job.json     the record: what was asked for, what was found for it, how it ended
    spec.yaml    what the action reads
    given.yaml   what of that was written by people, here and in the jobs before: jobs after this take it over
    log.txt      what the action wrote to the screen
    <action>/    its results
"""

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from oneformer_jax.app.run.status import LOCK, WITHOUT_LOCKS, holder
from oneformer_jax.app.spec.published.schema import ACTIONS
from oneformer_jax.app.spec.source import nearest
from oneformer_jax.data.storage.addresses import redacted
from oneformer_jax.errors import OneFormerError
from oneformer_jax.stored import read_json, stored_fields
from oneformer_jax.writing import write_json

_ID = re.compile(r"([a-z_]+)-(\d+)")


@dataclass
class Record:
    """What `job.json` holds.

    `lineage` are the ids of the jobs before this one, the first one first; `inputs` (data) and `values` are what was
    found for the keys that nobody wrote. `others`: what a newer version wrote, which is kept.
    """

    action: str
    command: str
    parent: str = ""
    lineage: list[str] = field(default_factory=list)
    datasets: dict[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    inputs: dict[str, Any] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""
    started: str = ""
    ended: str = ""
    status: str = "RUNNING"
    exit_code: int | None = None
    message: str = ""
    kpi: dict[str, Any] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    others: dict[str, Any] = field(default_factory=dict)


class Job:
    """A job on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.id = folder, folder.name
        self.record_path, self.spec_path = folder / "job.json", folder / "spec.yaml"
        self.given_path, self.log_path = folder / "given.yaml", folder / "log.txt"

    def results(self, record: Record) -> Path:
        """The folder into which the action writes."""
        return self.folder / record.command

    def read(self) -> Record:
        """Raises OneFormerError where the record is damaged; what a newer version added to it is kept."""
        content = read_json(self.record_path)
        known, others = stored_fields(Record, content, where=str(self.record_path), optional=("others",))
        if known["action"] not in ACTIONS:
            what = f"action is {known['action'][:60]!r}, expected one of {', '.join(ACTIONS)}"
            raise OneFormerError(what, where=str(self.record_path), hint="the record is damaged: remove this job")
        commands = (known["action"], "automl") if known["action"] == "train" else (known["action"],)
        if known["command"] not in commands:
            what = f"command is {known['command'][:60]!r}, expected {' or '.join(commands)}"
            raise OneFormerError(what, where=str(self.record_path), hint="the record is damaged: remove this job")
        return Record(**known | {"others": others})

    def write(self, record: Record) -> None:
        """Replaces the record, without what is secret in addresses."""
        content = asdict(record)
        content |= content.pop("others")
        write_json(self.record_path, redacted(content))

    def is_running(self) -> bool:
        """Whether a process works in it, or in the folder of its results: who started it may be gone."""
        return any(holder(folder) for folder in (self.folder, *self.folder.iterdir()) if folder.is_dir())


@dataclass(frozen=True)
class Workspace:
    """The jobs of a folder, which need not be there yet."""

    folder: Path

    def existing(self) -> "Workspace":
        """This workspace. Raises OneFormerError where there is no such folder."""
        if not self.folder.is_dir():
            raise OneFormerError("no such workspace", where=str(self.folder), hint="check --workspace")
        return self

    @contextmanager
    def numbering(self) -> Iterator[None]:
        """Held by the one process that numbers a job; made where it is not there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOCK).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in WITHOUT_LOCKS:
                    raise
            yield

    def jobs(self) -> list[Job]:
        """All jobs, in the order in which they were made."""
        numbered = sorted(self._numbered(), key=lambda item: (item[0], item[1].id))
        return [job for _, job in numbered if job.record_path.exists()]

    def job(self, name: str) -> Job:
        """Raises OneFormerError where there is no job of this id, or no workspace."""
        self.existing()
        job = Job(self.folder / name)
        if _ID.fullmatch(name) and job.record_path.exists():
            return job
        known = [other.id for other in self.jobs()]
        near = nearest(name, known)
        hint = f"did you mean {near}?" if near else f"it holds {', '.join(known[-10:]) or 'no job'}"
        raise OneFormerError(f"no job '{name}'", where=str(self.folder), hint=hint)

    def next_id(self, action: str) -> str:
        """Of a job to be made: jobs are counted over all actions, and one that is a parent keeps its number."""
        return f"{action}-{max((number for number, _ in self._numbered()), default=0) + 1}"

    def _numbered(self) -> Iterator[tuple[int, Job]]:
        for folder in self.folder.glob("*-*/"):
            if match := _ID.fullmatch(folder.name):
                yield int(match[2]), Job(folder)
