"""`quantize` and `benchmark` through the command line, on a trained model."""

import json
from pathlib import Path

import pytest
from conftest import CommandLine


def quantized(command_line: CommandLine, workspace: Path, *overrides: str) -> str:
    result = command_line("quantize", "--spec", workspace / "spec.yaml", *overrides)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def weights_only(command_line: CommandLine, workspace: Path, trained: Path) -> Path:
    """The folder of a checkpoint with 8-bit kernels."""
    told = quantized(
        command_line, workspace, f"quantize.model_path={trained}", "export.input_height=64", "export.input_width=64"
    )
    assert "torchao names a library of TAO's" in told
    assert "mIoU %" in told
    return trained / "quantize"


def test_a_quantized_checkpoint_is_scored_and_smaller(weights_only: Path, trained: Path) -> None:
    facts = json.loads((weights_only / "quantization.json").read_text())
    assert facts["after"]["size_MB"] < 0.4 * facts["before"]["size_MB"]
    for name in ("mIoU", "PQ", "AP"):
        assert facts["after"][name] == pytest.approx(facts["before"][name], abs=0.02)
    status = [json.loads(line) for line in (weights_only / "status.json").read_text().splitlines()]
    assert status[-1]["status"] == "SUCCESS"
    assert status[-1]["kpi"]["mIoU_after"] == facts["after"]["mIoU"]
    scores = json.loads((weights_only / "after" / "metrics.json").read_text())
    assert round(scores["mIoU"], 5) == facts["after"]["mIoU"]
    on_disk = sum(file.stat().st_size for file in (weights_only / "quantized_model").rglob("*") if file.is_file())
    of_training = sum(file.stat().st_size for file in (trained / "train" / "best").rglob("*") if file.is_file())
    assert on_disk < of_training / 4
