"""Whether pip can install every extra from wheels, on each Python that pyproject.toml names: `make resolve`.

A Python that is installed resolves for itself. For one that is not, pip is asked for its wheels; markers are then those
of the Python that runs this. Nothing is installed.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

PROJECT: dict[str, Any] = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
SOURCES = ("antlr4-python3-runtime==4.9.*", "promise")
"""Pure Python that is published as source alone: wheels of it are built first. The project itself is not resolved."""
APART = ("tensorrt", "tensorrt-rtx")
"""Source that only names NVIDIA's wheels for the CUDA that is found: its metadata cannot be read from a wheel."""
SHOWN = ("jax", "flax", "orbax-checkpoint", "optuna", "onnxruntime", "torch", "numpy")


def main() -> int:
    """Prints a line for every Python and extra; returns 1 where one cannot be resolved."""
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        pip(["wheel", "--no-deps", "--wheel-dir", folder, *SOURCES], check=True)
        for version in versions():
            found = interpreter(version)
            where = ["--python", found] if found else []
            target = [] if found else ["--python-version", version, "--target", f"{folder}/none"]
            print(f"Python {version}: {found or 'not installed, wheels alone are looked up'}", flush=True)
            for extra in ("", *EXTRAS):
                options = ["--dry-run", "--ignore-installed", "--only-binary=:all:", "--find-links", folder, *target]
                wanted = [text for text in requirements(extra) if name_of(text) not in APART]
                result = pip([*where, "install", *options, "--report", f"{folder}/report.json", *wanted])
                if result.returncode:
                    failures += 1
                    errors = "\n".join(line for line in result.stderr.splitlines() if line.startswith("ERROR"))
                    print(f"  {extra or 'base'}: cannot be installed\n{errors}", flush=True)
                    continue
                report = json.loads(Path(folder, "report.json").read_text())
                chosen = {name_of(it["metadata"]["name"]): it["metadata"]["version"] for it in report["install"]}
                shown = ", ".join(f"{name} {chosen[name]}" for name in SHOWN if name in chosen)
                left = [name_of(text) for text in requirements(extra) if name_of(text) in APART]
                apart = f"; without {', '.join(left)}" if left else ""
                print(f"  {extra or 'base'}: {len(chosen)} distributions ({shown}){apart}", flush=True)
    return min(failures, 1)


def requirements(extra: str) -> list[str]:
    """Those of the base and of an extra, with the extras that it names in place of this project."""
    texts = PROJECT["dependencies"] + EXTRAS.get(extra, [])
    while own := [text for text in texts if name_of(text) == PROJECT["name"]]:
        texts = [text for text in texts if text not in own]
        texts += [text for name in re.findall(r"[\w-]+", own[0].partition("[")[2]) for text in EXTRAS[name]]
        texts += own[1:]
    return sorted(set(texts))


def name_of(requirement: str) -> str:
    """The name of a distribution that a requirement starts with."""
    name = re.match(r"[\w.-]+", requirement)
    return name[0].lower() if name else ""


def versions() -> list[str]:
    """The Pythons that the classifiers name."""
    classifiers = "\n".join(PROJECT["classifiers"])
    return re.findall(r"Python :: (3\.\d+)$", classifiers, re.MULTILINE)


def interpreter(version: str) -> str | None:
    """An installed Python of this version: on the path, or one of pyenv's."""
    pyenv = sorted(map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))
    for command in (shutil.which(f"python{version}"), *pyenv):
        asked = "import sys, ensurepip; print('%d.%d' % sys.version_info[:2])"
        if command and subprocess.run([command, "-c", asked], capture_output=True, text=True).stdout.strip() == version:
            return command
    return None


def pip(arguments: list[str], *, check: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs the pip of this Python."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=check)


if __name__ == "__main__":
    sys.exit(main())
