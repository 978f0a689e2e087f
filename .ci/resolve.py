"""Whether every extra can be installed from wheels on each Python that pyproject.toml names: `make resolve`.

uv resolves for a Python that need not be there, with its markers, on Linux with an x86 processor. Nothing is installed.
"""

import re
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
PLATFORM = "x86_64-manylinux_2_28"


def main() -> int:
    """Prints a line for every Python and extra; returns 1 where one cannot be resolved."""
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        wheels = ["wheel", "--quiet", "--no-deps", "--wheel-dir", folder, *SOURCES]
        subprocess.run([sys.executable, "-m", "pip", *wheels], check=True)
        for version in re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE):
            print(f"Python {version}", flush=True)
            for extra in ("", *EXTRAS):
                result = resolved(extra, version, folder)
                if result.returncode:
                    failures += 1
                    print(f"  {extra or 'base'}: cannot be installed\n{result.stderr}", flush=True)
                    continue
                chosen = dict(line.split("==") for line in result.stdout.splitlines())
                shown = ", ".join(f"{name} {chosen[name]}" for name in SHOWN if name in chosen)
                left = [name_of(text) for text in requirements(extra) if name_of(text) in APART]
                apart = f"; without {', '.join(left)}" if left else ""
                print(f"  {extra or 'base'}: {len(chosen)} distributions ({shown}){apart}", flush=True)
    return min(failures, 1)


def resolved(extra: str, version: str, wheels: str) -> subprocess.CompletedProcess[str]:
    """What the base and an extra need, a line for each distribution."""
    wanted = "\n".join(text for text in requirements(extra) if name_of(text) not in APART)
    options = ["--python-version", version, "--python-platform", PLATFORM, "--only-binary", ":all:"]
    options += ["--find-links", wheels, "--no-annotate", "--no-header", "--quiet"]
    command = [sys.executable, "-m", "uv", "pip", "compile", *options, "-"]
    return subprocess.run(command, input=wanted, capture_output=True, text=True)


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


if __name__ == "__main__":
    sys.exit(main())
