"""The command line restarts itself with settings of the C library's allocator, which the other tests leave out."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from oneformer_jax.__main__ import ALLOCATOR

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")


def test_the_c_library_knows_the_settings_and_takes_their_values() -> None:
    settings = {name: int(value) for name, value in (entry.split("=") for entry in ALLOCATOR.split(":"))}
    loader = next(word for word in Path("/proc/self/maps").read_text().split() if "/ld-" in word)
    known = subprocess.run(
        [loader, "--list-tunables"],
        env={"GLIBC_TUNABLES": ALLOCATOR},
        capture_output=True,
        text=True,
    )
    if known.returncode:
        pytest.skip("this C library cannot list its settings (glibc before 2.33)")
    taken = dict(re.findall(r"^(glibc\.malloc\.\w+): (\S+)", known.stdout, re.MULTILINE))
    if "glibc.malloc.hugetlb" not in taken:  # glibc before 2.35 has no huge pages for malloc, and passes over them
        del settings["glibc.malloc.hugetlb"]
    assert {name: int(taken[name], 0) for name in settings} == settings


# As the entry point of an installed package; tests/packaging starts the one that pip writes.
CONSOLE_SCRIPT = "import sys\nfrom oneformer_jax.__main__ import main\nsys.exit(main())\n"


@pytest.mark.slow
@pytest.mark.parametrize("start", [["cli.py"], ["-m", "oneformer_jax"], ["oneformer"]], ids=" ".join)
def test_the_restarted_process_has_the_settings_and_the_arguments_and_its_exit_code_counts(
    start: list[str], tmp_path: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    environment["PYTHONPATH"] = str(ROOT)
    if start == ["oneformer"]:
        (tmp_path / "oneformer").write_text(CONSOLE_SCRIPT)
        start = [str(tmp_path / "oneformer")]

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *start, "inspect", "spec", "--spec", *arguments]
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)

    (tmp_path / "a spec.yaml").write_text("wandb: {name: '${oc.env:GLIBC_TUNABLES}'}")
    result = run(str(tmp_path / "a spec.yaml"), "train.num_epochs=3")
    assert (result.returncode, result.stderr) == (0, "")
    assert ALLOCATOR.partition(":")[0] in result.stdout  # a table breaks the rest
    assert "train.num_epochs" in result.stdout
    result = run(str(tmp_path / "no such.yaml"))
    assert result.returncode == 1
    assert "no such.yaml" in result.stderr
    assert "Traceback" not in result.stderr
