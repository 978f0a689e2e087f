"""`oneformer job ...`: run actions as jobs, and look at them."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from oneformer_jax.app.automl.policy import Policy
from oneformer_jax.app.cli.options import Overrides, path
from oneformer_jax.app.jobs.plan import Request
from oneformer_jax.app.jobs.run import create, follow, resume, run, state
from oneformer_jax.app.jobs.workspace import Job, Workspace
from oneformer_jax.app.run.failures import guarded
from oneformer_jax.app.spec.published.schema import ACTIONS
from oneformer_jax.data.storage.addresses import redacted
from oneformer_jax.errors import OneFormerError

app = typer.Typer(
    no_args_is_help=True, help="Run actions as jobs, with data from data-set roots and models from parent jobs."
)

Place = Annotated[Path, typer.Option("--workspace", "-w", parser=path, help="Folder of the jobs.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The id of a job, as `job list` shows it.")]
Root = Annotated[str | None, typer.Option(metavar="ROOT", help="Folder, archive or address of a complete data set.")]
METRICS = ("mIoU", "test_mIoU", "PQ", "test_PQ", "AP", "test_AP", "images")


def _command(action: str) -> None:
    @app.command(action, help=f"Run {action} as a job.")
    def command(
        workspace: Place,
        train_dataset: Root = None,
        eval_dataset: Root = None,
        inference_dataset: Root = None,
        calibration_dataset: Root = None,
        parent: Annotated[str, typer.Option(metavar="JOB", help="The job whose model and data this one uses.")] = "",
        automl_policy: Annotated[
            Policy | None,
            typer.Option(help="Whether to run an AutoML search; default: automl_policy in the spec, or else auto."),
        ] = None,
        spec: Annotated[
            Path | None, typer.Option("--spec", "-e", parser=path, help="A spec file to start from.")
        ] = None,
        overrides: Overrides = None,
    ) -> None:
        given = {
            "train_datasets": train_dataset,
            "eval_dataset": eval_dataset,
            "inference_dataset": inference_dataset,
            "calibration_dataset": calibration_dataset,
        }
        roots = {source: root for source, root in given.items() if root}
        request = Request(action, roots, parent, automl_policy, spec, overrides or [])
        with guarded() as console:
            _run_new(request, _at(workspace), console)


for _action in ACTIONS:
    _command(_action)


@app.command("resume")
def resume_job(workspace: Place, job: JobId) -> None:
    """Run a job again that did not come to its end; a training goes on from its newest checkpoint."""
    with guarded() as console:
        found = _at(workspace).job(job)
        _end(found, resume(found, _write), console)


@app.command("list")
def list_jobs(workspace: Place) -> None:
    """Show all jobs of a workspace: where they come from and how they ended."""
    with guarded() as console:
        found = _at(workspace).existing()
        if found.jobs():
            console.print(table_of(found))
        else:
            console.print(f"no jobs in {found.folder.resolve()}")


@app.command("show")
def show_job(
    workspace: Place,
    job: JobId,
    as_json: Annotated[bool, typer.Option("--json", help="The record as JSON.")] = False,
) -> None:
    """Show the record of a job: inputs, spec, versions, lineage, how it ended and what it left."""
    with guarded() as console:
        found = _at(workspace).job(job)
        record = asdict(state(found))
        content = redacted({"id": found.id, "folder": str(found.folder), **record, **record.pop("others")})
        if as_json:
            print(json.dumps(content, indent=2))
            return
        table = Table(show_header=False, box=None)
        for name, value in content.items():
            if value not in ("", None, [], {}):
                table.add_row(name, _text(value))
        console.print(table)


@app.command("logs")
def show_logs(
    workspace: Place,
    job: JobId,
    to_its_end: Annotated[bool, typer.Option("--follow", "-f", help="Follow the log until the job ends.")] = False,
) -> None:
    """Print what the action of a job wrote to the screen."""
    with guarded():
        found = _at(workspace).job(job)
        if not found.log_path.is_file():
            raise OneFormerError("there is no log: the action did not start", where=str(found.folder))
        with found.log_path.open("rb") as log:
            follow(log, _write, lambda: to_its_end and found.is_running())


def _at(folder: Path) -> Workspace:
    return Workspace(folder.absolute())


def _run_new(request: Request, workspace: Workspace, console: Console) -> None:
    job, record, secrets = create(request, workspace)
    console.print(f"job {job.id}: {job.folder}")
    for note in record.notes:
        console.print(f"  {note}")
    _end(job, run(job, record, secrets, _write), console)


def _end(job: Job, code: int, console: Console) -> None:
    record = job.read()
    console.print(f"job {job.id}: {record.status} ({record.message})")
    if code:
        raise typer.Exit(code)


def table_of(workspace: Workspace) -> Table:
    """All jobs, those with a damaged record too."""
    table = Table()
    for column in ("job", "parent", "status", "created", "result"):
        table.add_column(column, overflow="fold")
    for job in workspace.jobs():
        try:
            record = state(job)
        except OneFormerError as error:
            table.add_row(job.id, "", "DAMAGED", "", error.what, style="red")
            continue
        scores = {name: record.kpi[name] for name in METRICS if isinstance(record.kpi.get(name), int | float)}
        summary = "  ".join(f"{name} {value:.4g}" for name, value in scores.items())
        result = summary if record.status == "SUCCESS" else record.message
        table.add_row(job.id, record.parent, record.status, record.created, result.partition("\n")[0][:120])
    return table


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name}: {inner}" for name, inner in value.items())
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
