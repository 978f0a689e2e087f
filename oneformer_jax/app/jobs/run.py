"""Runs a job: its action as a process of its own, whose output is the job's log and whose end is recorded.

A process of its own, because it may end in ways that no Python code survives to report (the system stops it for memory,
a library aborts), because what such libraries write belongs into the log, and because its exit code then says how it
ended. It writes into the log itself: where whoever started the job is gone, it still runs to its end.
"""

import codecs
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import IO

from oneformer_jax.app.jobs.inputs import model_of
from oneformer_jax.app.jobs.plan import Request, make_plan, resumed_spec
from oneformer_jax.app.jobs.workspace import Job, Record, Workspace
from oneformer_jax.app.run.children import AGAIN, COMMAND_LINE, environment, forwarding
from oneformer_jax.app.run.status import only_process_in, read_status
from oneformer_jax.app.spec.source import yaml_text
from oneformer_jax.errors import OneFormerError
from oneformer_jax.writing import new_folder, write_text

PAUSE = 0.1  # seconds between looks at the log
Write = Callable[[str], None]


def create(request: Request, workspace: Workspace) -> tuple[Job, Record, Mapping[str, str]]:
    """A new job with its folder, the record that `run` will write, and its secrets by environment variable, which are
    stored nowhere.

    Raises OneFormerError, and leaves no folder, where something that it needs is not there.
    """
    while True:
        job = Job(workspace.folder / workspace.next_id(request.action))
        plan = make_plan(request, workspace, job)
        with workspace.numbering():
            if workspace.next_id(request.action) != job.id:  # another process was quicker
                continue
            plan.record.created = now()
            with new_folder(job.folder) as folder:  # with its record: on a full disk there is no job
                fresh = Job(folder)
                write_text(fresh.spec_path, yaml_text(plan.spec))
                write_text(fresh.given_path, yaml_text(plan.given))
                fresh.write(plan.record)
            return job, plan.record, plan.secrets


def run(job: Job, record: Record, secrets: Mapping[str, str], write: Write) -> int:
    """Runs the action, passes what it prints to `write`, and completes the record. Returns the action's exit code.

    Ctrl-C and SIGTERM go to the action, which decides what they mean. Raises FolderInUseError where the job runs
    already.
    """
    with only_process_in(job.folder):
        record.status, record.started, record.ended = "RUNNING", now(), ""
        job.write(record)
        again = shlex.join(["oneformer", "job", "resume", "--workspace", str(job.folder.parent), job.id])
        variables = {"PYTHONUNBUFFERED": "1", AGAIN: again, **secrets}
        with job.log_path.open("ab") as log, job.log_path.open("rb") as reader:
            reader.seek(0, os.SEEK_END)
            # Not that of a terminal that closes: the action runs to its end.
            with forwarding((signal.SIGINT, signal.SIGTERM)) as children:
                process = subprocess.Popen(
                    [*COMMAND_LINE, record.command, "-e", str(job.spec_path)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment() | variables,
                    start_new_session=True,  # a terminal's Ctrl-C comes by way of this process, and so once
                )
                children.watch([process])
                follow(reader, write, lambda: process.poll() is None)
                code = process.wait()
        close(job, record, code if code >= 0 else 128 - code)
    return record.exit_code or 0


def resume(job: Job, write: Write) -> int:
    """Runs a job again, in its folder. Raises FolderInUseError where it runs."""
    record = state(job)
    if job.is_running():
        with only_process_in(job.folder), only_process_in(job.results(record)):
            pass
    if record.status == "SUCCESS":
        raise OneFormerError(
            "it has come to its end: there is nothing to resume",
            where=str(job.folder),
            hint=f"start another job with --parent {job.id}",
        )
    write_text(job.spec_path, yaml_text(resumed_spec(job, record)))
    return run(job, record, {}, write)  # its secrets are in the environment, or there are none


def close(job: Job, record: Record, code: int | None) -> None:
    """Writes how the action ended: by its exit code and by the last line of its status.json."""
    last = (read_status(job.results(record) / "status.json") or [{}])[-1]
    ended = last.get("status") in ("SUCCESS", "FAILURE")
    record.ended, record.exit_code = now(), code
    record.status = "SUCCESS" if code == 0 or (code is None and last.get("status") == "SUCCESS") else "FAILURE"
    record.message = str(last.get("message", "")) if ended else _without_status(code)
    kpi = last.get("kpi")
    record.kpi = kpi if record.status == "SUCCESS" and isinstance(kpi, dict) else {}
    record.outputs = sorted(path.name for path in job.results(record).glob("[!.]*"))
    with suppress(OneFormerError):  # a spec that somebody has changed since
        model = model_of(job, record)
        record.outputs += [f"model: {model[1]}"] if model else []
    job.write(record)


def state(job: Job) -> Record:
    """The record as it is now. Where the process that should have completed it is gone, it is completed here."""
    record = job.read()
    if record.status == "RUNNING" and not job.is_running():
        record = job.read()  # it may just have ended
        if record.status == "RUNNING":
            close(job, record, None)
    return record


def follow(reader: IO[bytes], write: Write, goes_on: Callable[[], bool]) -> None:
    """Passes on what comes into a file until `goes_on` says that no more will come."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")  # what has come may end within a character
    last_look = False
    while True:
        if text := reader.read():
            write(decoder.decode(text))
        elif last_look:
            return
        elif goes_on():
            time.sleep(PAUSE)
        else:
            last_look = True


def now() -> str:
    """The time for people and programs, with its zone."""
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")


def _without_status(code: int | None) -> str:
    if code is None:
        return "its process ended without writing a status"
    if code == 128 + signal.SIGKILL:
        return "killed (SIGKILL): the system does this when memory runs out"
    return f"ended with exit code {code} without a status: see the log"
