"""The commands as they are typed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("inference", "training", "deformable_attention")


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ([f"benchmarks.{command}" for command in COMMANDS], {"jax", "torch"}),
        (["benchmarks.this_project"], {"torch"}),
        (["benchmarks.huggingface"], {"jax"}),
    ],
    ids=["commands", "this_project", "huggingface"],
)
def test_the_process_of_a_side_holds_nothing_of_the_other_side(modules: list[str], absent: set[str]) -> None:
    """A command's file becomes part of the process of each side."""
    script = f"import sys, {', '.join(modules)}\nprint(sorted({absent} & set(sys.modules)))"
    result = python("-c", script)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "[]\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_size_that_the_model_cannot_have(command: str) -> None:
    result = python("-m", f"benchmarks.{command}", "--size", "100")
    assert result.returncode == 2
    assert "argument --size: 100 is not a multiple of 32" in result.stderr


@pytest.mark.prove  # `make test`: test_comparison.py, and the processes of the sides above
def test_a_small_comparison(tmp_path: Path) -> None:
    options = ("--size", "64", "--rounds", "2", "--output", str(tmp_path))
    process = python("-m", "benchmarks.deformable_attention", *options)
    assert process.returncode == 0, process.stderr
    name = "deformable_attention-64-b1-cpu"
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.json"]
    cold, estimate, *_, last = process.stdout.splitlines()
    assert cold.startswith("cold start")
    assert estimate.startswith("2 measurements of each side: about")
    assert last.startswith(f"{name}: this project ")

    result = json.loads((tmp_path / f"{name}.json").read_text())
    assert result["kind"] == "deformable attention"
    assert result["workload"] == {"size": 64, "batch": 1, "device": "cpu"}
    # The sums and the gradients of values, locations and weights.
    assert result["share_within_1e-3"] == [1.0] * 4
    assert max(result["largest_difference"]) < 1e-3
    assert {"date", "machine", "model_gflop", "others_share", "matmul_gflop_s"} < set(result)
    assert set(result["machine"]) == {"processor", "versions", "device"}
    assert set(result["this_project"]) == {"first_s", "first_cached_s", "peak_mib", "peak_cached_mib", "times_ms"}
    assert set(result["reference"]) == {"first_s", "peak_mib", "times_ms"}
    for side in ("this_project", "reference"):
        assert len(result[side]["times_ms"]) == 2
        assert min(result[side]["times_ms"]) > 0
        assert result[side]["peak_mib"] > 100, "a library and its arrays"
    assert report.row(result)[0] in report.render([result])
