"""Roots with empty files, and jobs that never ran."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from stub_actions import ACTION

from oneformer_jax.app.jobs import run as runner
from oneformer_jax.app.jobs.workspace import Job, Record, Workspace

FILES = ("images.tar.gz", "images_panoptic.tar.gz", "annotations.json", "label_map.json", "label_map_panoptic.json")


@pytest.fixture
def root_of(tmp_path: Path) -> Callable[..., str]:
    """`root_of(name, *files)`: a folder with these files; without any, with all that a data set may have."""

    def made(name: str, *files: str) -> str:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in files or FILES:
            (folder / file).touch()
        return str(folder)

    return made


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


@pytest.fixture
def job_of(workspace: Workspace) -> Callable[..., Job]:
    """`job_of(action, *files)`: a finished job whose results are these files; a name that ends in / is a checkpoint."""

    def made(action: str, *files: str, given: str = "{}", spec: str = "{}", **record: object) -> Job:
        job = Job(workspace.folder / workspace.next_id(action))
        entry = Record(**{"action": action, "command": action, "status": "SUCCESS", "exit_code": 0, **record})
        job.results(entry).mkdir(parents=True)
        for name in files:
            path = job.results(entry) / name
            if name.endswith("/"):
                (path / "params").mkdir(parents=True)
                (path / "description").mkdir()
            else:
                path.touch()
        job.given_path.write_text(given)
        job.spec_path.write_text(spec)
        job.write(entry)
        return job

    return made


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`stub(code)`: from now on every action is this code."""

    def becomes(code: str) -> None:
        (tmp_path / "stub.py").write_text(ACTION + code + "\n")
        monkeypatch.setattr(runner, "COMMAND_LINE", (sys.executable, str(tmp_path / "stub.py")))

    return becomes
