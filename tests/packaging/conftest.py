"""Environments with the wheel of this checkout and what chosen extras ask for, linked from the tests' environment."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterable
from email.parser import HeaderParser
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
NAME = "oneformer-jax"


class Environment:
    """A virtual environment without pip."""

    def __init__(self, folder: Path, wheel: Path, extras: Iterable[str]) -> None:
        self.bin = folder / "bin"
        _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
        packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
        self.distributions = _needed(wheel, extras)
        for found in self.distributions.values():
            _link(found, packages)
        python = str(self.bin / "python")
        _run([sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", str(wheel)])

    def run(
        self, *command: object, cwd: Path, program: str = "oneformer", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment in a folder; a variable that is "" is unset."""
        environment = os.environ | {"COLUMNS": "200", "JAX_PLATFORMS": "cpu", "PYTHONPATH": ""} | variables
        return subprocess.run(
            [str(self.bin / program), *map(str, command)],
            env={name: value for name, value in environment.items() if value},
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    _run([sys.executable, "-m", "pip", "wheel", *options, str(ROOT)])
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Environment]:
    """`environment(*extras)`: the installed wheel with nothing but what these extras need."""

    def make(*extras: str) -> Environment:
        return Environment(tmp_path_factory.mktemp("-".join(["environment", *extras])), wheel, extras)

    return make


def requirements(wheel: Path) -> list[Requirement]:
    """What the metadata of the wheel asks for."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        header = HeaderParser().parsestr(archive.read(name).decode())
    return [Requirement(text) for text in header.get_all("Requires-Dist", [])]


def _needed(wheel: Path, extras: Iterable[str]) -> dict[str, Distribution]:
    """By name: the distributions that the wheel needs with these extras, and those that they need.

    Raises PackageNotFoundError where the environment of the tests lacks one.
    """
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(NAME, extra) for extra in ("", *extras)]
    while waiting:
        if (step := waiting.pop()) in seen:
            continue
        seen.add(step)
        name, extra = step
        if name == NAME:
            needs = requirements(wheel)
        else:
            found[name] = distribution(name)
            needs = [Requirement(text) for text in found[name].requires or ()]
        for need in needs:
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(need.name), wanted) for wanted in ("", *need.extras)]
    return found


def _link(found: Distribution, packages: Path) -> None:
    """Links the files of a distribution, one by one: several may share a folder."""
    for file in found.files or ():
        if ".." not in file.parts:
            link = packages / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.locate())


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
