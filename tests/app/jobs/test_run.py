"""A job's process, log, record and exit code, with actions of a few lines in place of the real ones."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from clusters import ended
from stub_actions import ENDINGS, job

from oneformer_jax.app.jobs import run as runner
from oneformer_jax.app.jobs.plan import Request, make_plan
from oneformer_jax.app.jobs.run import state
from oneformer_jax.app.jobs.workspace import Job, Workspace
from oneformer_jax.app.run.status import only_process_in

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", ENDINGS)
def test_record_log_and_exit_code_tell_how_the_action_ended(
    name: str, workspace: Workspace, stub: Callable[[str], None]
) -> None:
    code, exit_code, ending = ENDINGS[name]
    stub(code)
    result = job("export", "-w", workspace.folder, "export.checkpoint=given")
    assert result.exit_code == exit_code, result.output
    record = workspace.job("export-1").read()
    assert (record.status, record.message, record.exit_code) == (*ending, exit_code)
    assert record.created <= record.started <= record.ended
    assert {"oneformer_jax", "jax", "python"} <= set(record.versions)
    assert f"job export-1: {ending[0]} ({ending[1]})" in result.stdout
    if name == "success":
        assert record.kpi == {"test_mIoU": 0.25}
        assert record.outputs == ["metrics.json", "status.json"]
    said = {"success": "working\n", "failure": "no\n"}.get(name)
    if said:
        assert said in result.stdout
        assert job("logs", "-w", workspace.folder, "export-1").stdout == said


def test_a_folder_without_jobs_says_so(tmp_path: Path) -> None:
    result = job("list", "-w", tmp_path)
    assert result.exit_code == 0
    assert f"no jobs in {tmp_path}" in result.stdout.replace("\n", "")


def test_list_and_show(workspace: Workspace, stub: Callable[[str], None]) -> None:
    absent = job("list", "-w", workspace.folder)
    assert (absent.exit_code, "no such workspace" in absent.stderr) == (1, True)
    for name in ("success", "failure"):
        stub(ENDINGS[name][0])
        job("export", "-w", workspace.folder, "export.checkpoint=given", "export_width=64")
    rows = [line for line in job("list", "-w", workspace.folder).stdout.splitlines() if "export-" in line]
    assert ["export-1" in rows[0], "SUCCESS" in rows[0], "test_mIoU 0.25" in rows[0]] == [True] * 3
    assert ["export-2" in rows[1], "FAILURE" in rows[1], "no such data" in rows[1]] == [True] * 3
    shown = json.loads(job("show", "-w", workspace.folder, "export-1", "--json").stdout)
    assert shown["overrides"] == ["export.checkpoint=given", "export.input_width=64"]
    assert shown["values"]["export.onnx_file"] == str(workspace.folder / "export-1" / "export" / "model.onnx")
    assert "export.onnx_file" in job("show", "-w", workspace.folder, "export-1").stdout
    result = job("show", "-w", workspace.folder, "exprt-1")
    assert result.exit_code == 1
    assert "no job 'exprt-1'\n  -> did you mean export-1?" in result.stderr


def test_a_job_that_cannot_start_leaves_nothing(workspace: Workspace) -> None:
    result = job("export", "-w", workspace.folder, "--parent", "train-1")
    assert result.exit_code == 1
    assert "no such workspace" in result.stderr
    assert not workspace.folder.exists()


def test_jobs_are_counted_over_all_actions(workspace: Workspace, stub: Callable[[str], None]) -> None:
    stub(ENDINGS["success"][0])
    (workspace.folder / "export-7").mkdir(parents=True)  # of a process that has not written its record yet
    job("export", "-w", workspace.folder, "export.checkpoint=given")
    job("quantize", "-w", workspace.folder, "quantize.model_path=given")
    assert [found.id for found in workspace.jobs()] == ["export-8", "quantize-9"]


def test_two_that_start_at_once_get_folders_of_their_own(
    workspace: Workspace, stub: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = []

    def meanwhile(request: Request, jobs: Workspace, found: Job):
        planned.append(found.id)
        if len(planned) == 1:
            found.folder.mkdir(parents=True)
        return make_plan(request, jobs, found)

    monkeypatch.setattr(runner, "make_plan", meanwhile)
    stub(ENDINGS["success"][0])
    assert job("export", "-w", workspace.folder, "export.checkpoint=given").exit_code == 0
    assert planned == ["export-1", "export-2"]
    assert workspace.job("export-2").read().values["results_dir"] == str(workspace.folder / "export-2")


def test_the_key_reaches_the_action_by_its_environment(workspace: Workspace, stub: Callable[[str], None]) -> None:
    stub("print(os.environ['ONEFORMER_ENCRYPTION_KEY'], spec['encryption_key']); status('SUCCESS', '')")
    result = job("export", "-w", workspace.folder, "export.checkpoint=given", "encryption_key=secret")
    assert "secret ${oc.env:ONEFORMER_ENCRYPTION_KEY,''}" in result.stdout
    assert "secret" not in (workspace.folder / "export-1" / "job.json").read_text()


def test_a_job_whose_process_is_gone_and_its_second_run(workspace: Workspace, stub: Callable[[str], None]) -> None:
    stub(ENDINGS["success"][0])
    job("export", "-w", workspace.folder, "export.checkpoint=given")
    found = workspace.job("export-1")
    for last, ending in (("SUCCESS", "SUCCESS"), ("STARTED", "FAILURE")):
        record = found.read()
        record.status, record.exit_code = "RUNNING", None
        found.write(record)
        status = found.results(record) / "status.json"
        status.write_text(json.dumps({"status": last, "message": "Message."}) + "\n")
        with only_process_in(found.results(record)):  # who started the job is gone, the action is not
            assert state(found).status == "RUNNING"
        assert state(found).status == ending
        assert state(found).message == {"FAILURE": "its process ended without writing a status"}.get(ending, "Message.")
    with only_process_in(found.results(found.read())):
        result = job("resume", "-w", workspace.folder, "export-1")
    assert result.exit_code == 1
    assert "in use by process" in result.stderr
    assert job("resume", "-w", workspace.folder, "export-1").exit_code == 0
    assert found.log_path.read_text() == "working\nworking\n"


WAITING = """
signal.signal(signal.SIGINT, signal.default_int_handler)
print("ready", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("saved")
    status("FAILURE", "Export was interrupted (Ctrl-C).")
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (signal.SIGINT, 130, "Export was interrupted (Ctrl-C)."),
        (signal.SIGTERM, 143, "ended with exit code 143 without a status: see the log"),
        (signal.SIGKILL, -9, ""),
        (signal.SIGHUP, 129, ""),  # the terminal closed
    ],
)
def test_signals_go_to_the_action_once_and_its_end_is_the_jobs(
    number: signal.Signals, code: int, message: str, workspace: Workspace, tmp_path: Path, stub: Callable[[str], None]
) -> None:
    goes_on = number in (signal.SIGKILL, signal.SIGHUP)
    stub(WAITING if not goes_on else "print('ready'); time.sleep(1); status('SUCCESS', 'Done.')")
    program = (
        "import signal, sys\nfrom oneformer_jax.app.cli import job_commands\n"
        "from oneformer_jax.app.jobs import run\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"  # which nohup, around the tests, would have switched off
        f"run.COMMAND_LINE = (sys.executable, {str(tmp_path / 'stub.py')!r})\njob_commands.app(sys.argv[1:])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "export", "-w", str(workspace.folder), "export.checkpoint=given"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=os.environ,
        start_new_session=True,
    )
    assert process.stdout is not None
    seen = []
    with ended([process]):
        for line in process.stdout:
            seen.append(line)
            if line == "ready\n":
                os.killpg(process.pid, number)  # as a terminal does
                break
        seen.append(process.communicate(timeout=60)[0])
    assert process.returncode == code, "".join(seen)
    found = workspace.job("export-1")
    if goes_on:  # the action was not hit, and its output has a place to go
        deadline = time.monotonic() + 30
        while (record := state_when_idle(found)).status == "RUNNING" and time.monotonic() < deadline:
            time.sleep(0.1)
        assert (record.status, record.message) == ("SUCCESS", "Done.")
        return
    record = found.read()
    assert (record.status, record.message, record.exit_code) == ("FAILURE", message, code)
    assert "saved" in "".join(seen) or number == signal.SIGTERM


def state_when_idle(found: Job):
    """The state, once status.json has its last line: the stub holds no lock, as real actions do."""
    path = found.folder / "export" / "status.json"
    return state(found) if "SUCCESS" in path.read_text() else found.read()
