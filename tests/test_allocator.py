"""The command line restarts itself with settings of the C library's allocator, which the other tests leave out."""

import os
import platform
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

CLI = Path(__file__).parents[1] / "cli.py"

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")


def test_the_c_library_knows_the_settings_and_takes_their_values() -> None:
    allocator = runpy.run_path(str(CLI))["ALLOCATOR"]
    settings = {name: int(value) for name, value in (entry.split("=") for entry in allocator.split(":"))}
    loader = next(word for word in Path("/proc/self/maps").read_text().split() if "/ld-" in word)
    known = subprocess.run(
        [loader, "--list-tunables"],
        env={"GLIBC_TUNABLES": allocator},
        capture_output=True,
        text=True,
    )
    if known.returncode:
        pytest.skip("this C library cannot list its settings (glibc before 2.33)")
    taken = dict(re.findall(r"^(glibc\.malloc\.\w+): (\S+)", known.stdout, re.MULTILINE))
    if "glibc.malloc.hugetlb" not in taken:  # glibc before 2.35 has no huge pages for malloc, and passes over them
        del settings["glibc.malloc.hugetlb"]
    assert {name: int(taken[name], 0) for name in settings} == settings


def test_arguments_output_and_exit_code_are_those_of_the_restarted_process(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, str(CLI), "train", "--spec", str(tmp_path / "no such.yaml")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert "no such.yaml" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
