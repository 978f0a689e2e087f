"""`quantize` and `benchmark` through the command line, on a trained model."""

import json
from pathlib import Path

import onnx
import pytest
from conftest import CommandLine

from converters.graphs.activations import formats_of_activations

pytestmark = pytest.mark.slow


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


@pytest.mark.tao(29)
def test_a_quantized_checkpoint_is_scored_and_smaller(weights_only: Path, trained: Path) -> None:
    facts = json.loads((weights_only / "quantization.json").read_text())
    index = 0.35  # MB that Orbax writes about the places of so many arrays, some of it twice or not as it happens
    assert facts["after"]["size_MB"] < 0.3 * facts["before"]["size_MB"] + index
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


@pytest.mark.prove  # `make test`: it is scored, above
def test_a_quantized_checkpoint_loads_wherever_checkpoints_do(
    weights_only: Path, workspace: Path, command_line: CommandLine, tmp_path: Path
) -> None:
    model = weights_only / "quantized_model"
    for action, overrides in (
        ("inference", ["inference.mode=panoptic", f"inference.images_dir={workspace / 'data' / 'val' / 'images'}"]),
        ("export", ["export.input_height=64", "export.input_width=64", f"export.onnx_file={tmp_path / 'model.onnx'}"]),
    ):
        keys = [f"results_dir={tmp_path}", f"{action}.checkpoint={model}", *overrides]
        result = command_line(action, "--spec", workspace / "spec.yaml", *keys)
        assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "model.onnx").is_file()


@pytest.mark.tao(29)
def test_a_checkpoint_becomes_a_graph_in_8_bits(command_line: CommandLine, workspace: Path, trained: Path) -> None:
    folder = workspace / "static"
    quantized(
        command_line,
        workspace,
        f"results_dir={folder}",
        f"quantize.model_path={trained}",
        "quantize.mode=static_ptq",
        f"dataset.quant_calibration_dataset.images_dir={workspace / 'data' / 'train' / 'images'}",
        "export.input_height=64",
        "export.input_width=64",
    )
    facts = json.loads((folder / "quantize" / "quantization.json").read_text())
    assert facts["after"]["size_MB"] < facts["before"]["size_MB"]
    for name in ("mIoU", "PQ", "AP"):
        assert facts["after"][name] == pytest.approx(facts["before"][name], abs=0.05)
    model = onnx.load(folder / "quantize" / "quantized_model.onnx")
    assert formats_of_activations(model) == {"int8"}
    result = command_line("benchmark", "--onnx", folder / "quantize" / "quantized_model.onnx", "--batch-size", "1",
        "--batch-size", "3", "--runs", "4", "--output", folder / "latency.json")  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "images/s" in result.stdout
    latency = json.loads((folder / "latency.json").read_text())
    assert [row["batch_size"] for row in latency["results"]] == [1, 3]
    for row in latency["results"]:
        assert row["min_ms"] <= row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["images_per_second"] == pytest.approx(1000 * row["batch_size"] / row["p50_ms"], rel=0.9)


def test_a_checkpoint_is_timed_by_its_own_size(command_line: CommandLine, trained: Path, tmp_path: Path) -> None:
    found = tmp_path / "latency.json"
    result = command_line("benchmark", "--checkpoint", trained / "train", "--size", "64", "96", "--batch-size", "2",
        "--task", "panoptic", "--runs", "3", "--output", found)  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    latency = json.loads(found.read_text())
    assert (latency["kind"], latency["image_size"], latency["task"]) == ("checkpoint", [64, 96], "panoptic")
    assert latency["runs_on"].startswith("JAX")
    ((row,)) = latency["results"]
    assert row["batch_size"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name one model"),
        (["--engine", "model.onnx", "--onnx", "model.onnx"], "name one model"),
        (["--engine", "model.onnx"], "is not what the option says"),
        (["--engine", "model.engine"], "model.engine"),
        (["--onnx", "nothing.onnx"], "nothing.onnx"),
    ],
)
def test_what_cannot_be_timed_is_named(
    command_line: CommandLine, tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    (tmp_path / "model.engine").write_bytes(b"no engine")
    result = command_line("benchmark", *(option if option[0] == "-" else tmp_path / option for option in options))
    assert result.returncode == 1
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
