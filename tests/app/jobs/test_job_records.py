"""Records of jobs: damaged, of a newer version, numbered together, moved between folders, without secrets."""

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from stub_actions import ENDINGS, job

from oneformer_jax.app.jobs import run as runner
from oneformer_jax.app.jobs.plan import Request
from oneformer_jax.app.jobs.workspace import Job, Record, Workspace
from oneformer_jax.app.run.children import AGAIN
from oneformer_jax.app.run.failures import how_to_go_on
from oneformer_jax.errors import OneFormerError


def test_a_job_that_came_to_its_end_is_not_run_again(workspace: Workspace, stub: Callable[[str], None]) -> None:
    stub(ENDINGS["success"][0])
    job("export", "-w", workspace.folder, "export.checkpoint=given")
    result = job("resume", "-w", workspace.folder, "export-1")
    assert result.exit_code == 1
    assert "nothing to resume" in result.stderr
    assert workspace.job("export-1").log_path.read_text() == "working\n"


def test_one_damaged_record_does_not_hide_the_others(workspace: Workspace, job_of: Callable[..., Job]) -> None:
    good, bad = job_of("train"), job_of("export")
    bad.record_path.write_text('{"action": "export", "command": 5}')
    result = job("list", "-w", workspace.folder)
    assert result.exit_code == 0
    assert [name in result.stdout for name in (good.id, bad.id, "DAMAGED")] == [True] * 3
    shown = job("show", "-w", workspace.folder, bad.id)
    assert shown.exit_code == 1
    assert "command is 5 (a whole number), expected text" in shown.stderr
    assert "parent is missing" in shown.stderr


def test_what_a_newer_version_wrote_is_kept_and_shown(workspace: Workspace, job_of: Callable[..., Job]) -> None:
    made = job_of("train")
    content = json.loads(made.record_path.read_text()) | {"carbon": {"grams": 3}}
    made.record_path.write_text(json.dumps(content))
    made.write(made.read())
    assert json.loads(made.record_path.read_text()) == content
    assert "carbon" in job("show", "-w", workspace.folder, made.id).stdout


def test_jobs_that_start_together_have_different_numbers(
    workspace: Workspace, stub: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stub(ENDINGS["success"][0])
    together = threading.Barrier(2)
    planned = runner.make_plan

    def slowly(request: Request, place: Workspace, made: Job) -> object:
        plan = planned(request, place, made)
        if made.id.endswith("-1"):
            together.wait(60)  # both have chosen the first number
        return plan

    monkeypatch.setattr(runner, "make_plan", slowly)
    found = []
    requests = [
        Request("export", overrides=["export.checkpoint=c"]),
        Request("quantize", overrides=["quantize.model_path=c"]),
    ]
    threads = [
        threading.Thread(target=lambda request=request: found.append(runner.create(request, workspace)[0].id))
        for request in requests
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name.rpartition("-")[2] for name in found) == ["1", "2"]


def test_relative_locations_mean_the_same_in_another_folder(
    workspace: Workspace, stub: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stub("print(spec['export']['checkpoint'], spec['dataset']['label_map']); status('FAILURE', 'later'); sys.exit(1)")
    job("export", "-w", "workspace", "export.checkpoint=c", "dataset.label_map={'*': ../map.json}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    job("resume", "-w", "../workspace", "export-1")
    first, second = workspace.job("export-1").log_path.read_text().splitlines()
    assert first == second == f"{tmp_path}/c {{'*': '{tmp_path}/../map.json'}}"


def test_a_parent_is_found_from_another_folder(
    workspace: Workspace,
    stub: Callable[[str], None],
    job_of: Callable[..., Job],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A workspace that is named by a relative path gives the same parent as by any other."""
    parent = job_of("train", "best/")
    stub("print(spec['export']['checkpoint']); status('SUCCESS', 'Done.')")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = job("export", "-w", "../workspace", "--parent", parent.id)
    assert result.exit_code == 0, result.output
    (printed,) = workspace.job("export-2").log_path.read_text().splitlines()
    assert Path(printed).resolve() == parent.folder / "train" / "best"
    assert Path(printed).is_absolute()


def test_an_action_of_a_job_knows_how_the_job_goes_on(
    workspace: Workspace, stub: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert how_to_go_on("automl", workspace.folder) == "run the same command again: the study goes on"
    stub(f"print(os.environ['{AGAIN}']); status('SUCCESS', 'Done.')")
    job("export", "-w", workspace.folder, "export.checkpoint=c")
    (command,) = workspace.job("export-1").log_path.read_text().splitlines()
    assert command == f"oneformer job resume --workspace {workspace.folder} export-1"
    assert job(*command.split()[2:]).exit_code == 1, "it has come to its end"
    monkeypatch.setenv(AGAIN, command)
    assert how_to_go_on("automl", workspace.folder) == f"run `{command}`: the study goes on"


def test_an_address_with_a_password_reaches_the_action_and_no_file(
    workspace: Workspace, stub: Callable[[str], None]
) -> None:
    word = "T0p-Secret"
    stub(
        "import re; text = spec['export']['checkpoint']; name = re.search('oc.env:(\\\\w+)', text)[1]\n"
        "status('FAILURE', str(os.environ[name] == 'https://a:T0p-' + 'Secret@h/c?sig=1')); sys.exit(1)"
    )
    job("export", "-w", workspace.folder, f"export.checkpoint=https://a:{word}@h/c?sig=1", f"encryption_key={word}")
    made = workspace.job("export-1")
    assert made.read().message == "True"
    assert not [path for path in made.folder.rglob("*") if path.is_file() and word in path.read_text()]
    shown = job("show", "-w", workspace.folder, "export-1")
    assert word not in shown.output
    assert "https://<redacted>@h/c?<redacted>" in shown.output


@pytest.mark.parametrize("command", ["rm -rf", "../../../etc", "evaluate"])
def test_a_record_whose_command_is_not_that_of_its_action_is_refused(tmp_path: Path, command: str) -> None:
    job = Job(tmp_path / "train-1")
    job.write(Record("train", command))
    with pytest.raises(
        OneFormerError, match=r"job.json: command is .*, expected train or automl\n  -> the record is dam"
    ):
        job.read()


def test_a_job_whose_record_is_a_folder_is_listed_and_refused(tmp_path: Path) -> None:
    (tmp_path / "train-1" / "job.json").mkdir(parents=True)
    (job,) = Workspace(tmp_path).jobs()
    with pytest.raises(OneFormerError, match=r"job.json: this is a folder, not a JSON file"):
        job.read()
    assert Workspace(tmp_path).job("train-1").id == "train-1"


def test_a_job_that_cannot_be_recorded_is_not_there(
    workspace: Workspace, stub: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    stub(ENDINGS["success"][0])
    with monkeypatch.context() as patched:
        patched.setattr(Job, "write", full)
        result = job("export", "-w", workspace.folder, "export.checkpoint=given")
    assert result.exit_code == 1
    assert "export-1: the file cannot be written: No space left on device\n  -> free disk space" in result.stderr
    assert [path.name for path in workspace.folder.iterdir()] == [".lock"]
    assert job("export", "-w", workspace.folder, "export.checkpoint=given").exit_code == 0
    assert workspace.job("export-1").read().status == "SUCCESS"
