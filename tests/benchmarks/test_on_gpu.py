"""The slices of `make gpu`, without a GPU: a driver and slices of the tests' own stand in for the real ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import on_gpu
from benchmarks.on_gpu import SLICES, Slice, folder_name, page, run

ROOT = Path(__file__).resolve().parents[2]
WRITES = ("-c", "import sys; open(sys.argv[1], 'a').write('x'); print('all is well')", "{folder}/ran")
FAILS = ("-c", "import sys; print('no'); sys.exit(3)", "")


def test_what_is_done_is_not_done_again_and_the_rest_is_listed(tmp_path: Path) -> None:
    slices = (Slice("good", WRITES), Slice("bad", FAILS), Slice("rich", WRITES, needs=("not_there",)))
    folder = tmp_path / "gpu-some"
    assert not run(slices, folder)
    assert not run(slices, folder)
    assert (folder / "ran").read_text() == "x"
    ended = {name: how["ended"] for name, how in json.loads((folder / "slices.json").read_text()).items()}
    assert ended == {
        "good": "done",
        "bad": f"failed with exit code 3: {folder / 'bad.log'}",
        "rich": "left out: not_there not installed",
    }
    assert run(slices[:1], folder)
    lines = list(page("NVIDIA Some", folder))
    assert lines[0] == "# Measured on NVIDIA Some"
    assert [line.split(" | ")[:2] for line in lines if line.startswith(("| good", "| bad", "| rich"))] == [
        ["| good", "done"],
        ["| bad", "failed with exit code 3"],
        ["| rich", "left out"],
    ]


def test_a_slice_that_takes_too_long_ends(tmp_path: Path) -> None:
    assert not run((Slice("endless", ("-c", "import time; time.sleep(60)", ""), minutes=0),), tmp_path)
    assert "exit code 124" in (tmp_path / "slices.json").read_text()


@pytest.mark.parametrize(
    ("driver", "told"),
    [
        (None, "no NVIDIA driver: nvidia-smi was not found"),
        ("echo No devices were found; exit 6", "no GPU: nvidia-smi says No devices were found"),
        ("echo NVIDIA Paper 1", "JAX does not see the GPU (NVIDIA Paper 1)"),
    ],
)
def test_it_ends_early_where_there_is_no_gpu(driver: str | None, told: str, tmp_path: Path) -> None:
    if driver is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{driver}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    command = [sys.executable, "-m", "benchmarks.on_gpu", "--check", "--results", tmp_path, "--docs", tmp_path]
    environment = os.environ | {"PATH": f"{tmp_path}:/bin" if driver else str(tmp_path)}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert told in process.stderr
    assert "Traceback" not in process.stderr
    assert not list(tmp_path.glob("gpu-*"))


def test_names_of_gpus_become_names_of_folders() -> None:
    assert folder_name("NVIDIA H100 80GB HBM3") == "h100-80gb-hbm3"


@pytest.mark.parametrize("one", SLICES, ids=lambda one: one.name)
def test_every_slice_is_a_command_that_is_there(one: Slice) -> None:
    """Its module or file, and the files that it names."""
    words = [word.format(folder="x") for word in one.command]
    if words[0] == "-m":
        assert words[1] == "pytest" or (ROOT / f"{words[1].replace('.', '/')}.py").is_file()
    else:
        assert (ROOT / words[0]).is_file()
    assert [word for word in words if word.startswith(("tests/", "configs/")) and not (ROOT / word).is_file()] == []
    assert len({one.name for one in SLICES}) == len(SLICES)
    assert on_gpu.CHECK[0].minutes < 8
