import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report


def result(**changes: Any) -> dict[str, Any]:
    measured = {
        "kind": "inference",
        "workload": {"backbone": "swin_t", "size": 512, "batch": 2, "device": "cpu", "training": False},
        "date": "2020-02-20",
        "machine": {"processor": "Abacus, 2 cores, 8 GiB", "versions": "Python 3.11", "device": "cpu"},
        "this_project": {
            "first_s": 30.04,
            "first_cached_s": 4.06,
            "peak_mib": 1500,
            "peak_cached_mib": 1200,
            "times_ms": [1000.0, 2000.0, 4000.0],
        },
        "reference": {"first_s": 2.5, "peak_mib": 1800, "times_ms": [3000.0, 3000.0, 4000.0]},
        "model_gflop": 100.0,
        "others_share": 0.01,
        "matmul_gflop_s": [80.0, 100.0],
        "share_within_1e-3": [1.0, 0.99951],
    }
    return measured | changes


def attention() -> dict[str, Any]:
    times = {"first_s": 1.0, "peak_mib": 400, "times_ms": [12.345]}
    return result(
        kind="deformable attention",
        workload={"size": 64, "batch": 1, "device": "gpu"},
        machine=result()["machine"] | {"device": "Accelerator 1"},
        this_project=times | {"first_cached_s": 0.5, "peak_cached_mib": 300},
        reference=times,
        model_gflop=None,
    )


def training() -> dict[str, Any]:
    measured = result(kind="training", loss={"this_project": 99.5, "reference": 101.25})
    del measured["share_within_1e-3"]
    return measured


def pipeline() -> dict[str, Any]:
    measured = result(
        kind="pipeline",
        workload={"data": "drawn", "recipe": "tao", "crop": 1024, "device": "cpu"},
        this_project={"times_ms": [10.0, 8.0, 10.0], "peak_mib": 150},
        reference={"times_ms": [40.0, 50.0, 50.0], "peak_mib": 400},
    )
    for name in ("model_gflop", "matmul_gflop_s", "share_within_1e-3"):
        del measured[name]
    return measured


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Files with these results, of which `report.main` shall make a page."""

    def write(**results: dict[str, Any]) -> Path:
        for name, content in results.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        page = tmp_path / "page.md"
        monkeypatch.setattr(sys, "argv", ["report", "--results", str(tmp_path), "--page", str(page)])
        return page

    return write


def test_a_row_by_hand() -> None:
    # The ratios of the measurements are 3, 1.5 and 1: the tenths between them by linear interpolation.
    assert report.row(result()) == [
        "inference, Swin-T 512, batch 2",
        "2000",
        "3000",
        "1.50 (1.10-2.70)",
        "30.0 (4.1) / 2.5",
        "1500 (1200) / 1800",
        "100",
        "50% / 33%",
    ]


def test_a_row_without_flops() -> None:
    row = report.row(attention())
    assert row[0] == "deformable attention, 64, batch 1"
    assert row[1:4] == ["12.3", "12.3", "1.00 (1.00-1.00)"]
    assert row[-2:] == ["", ""]


def test_a_page_has_a_table_for_each_machine_and_says_how_well_outputs_agree() -> None:
    page = report.render([result(), attention(), training()])
    assert page.startswith(report.INTRODUCTION)
    assert page.count("\n## ") == 2
    assert "## Abacus, 2 cores, 8 GiB\n\n2020-02-20. Python 3.11.\n" in page
    assert "## Abacus, 2 cores, 8 GiB, Accelerator 1\n" in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert len(tables) == 2 * 2 + 3
    assert {line.count("|") for line in tables} == {len(report.HEAD) + 1}
    assert (
        "- inference, Swin-T 512, batch 2: outputs within 0.001 of the largest entry: 100.00%, 99.95%\n"
        "- training, Swin-T 512, batch 2: loss 99.5 / 101.25 (other random points and dropout)\n"
    ) in page


def test_the_pipeline_has_a_section_of_its_own() -> None:
    page = report.render([pipeline(), result()])
    models, pipelines = page.split(report.PIPELINE)
    assert models == report.render([result()]) + "\n"
    # The ratios of the measurements are 4, 6.25 and 5.
    assert "| drawn, tao, 1024 | 100.0 | 20.0 | 5.00 (4.20-6.00) | 150 / 400 |" in pipelines
    assert "### Abacus, 2 cores, 8 GiB\n" in pipelines


def test_a_large_data_set_has_a_row() -> None:
    large = {
        "kind": "large",
        "workload": {"images": 100000, "segments": 2000000, "form": "shards", "workers": 2, "device": "cpu"},
        "start_s": 41.4,
        "start_peak_mib": 900,
        "steps": 2000,
        "memory_mib": [700, 701],
        "pair_slots": [64, 96],
        "late_compilations": [7],
    }
    page = report.render([result() | large])
    assert page.count(report.LARGE) == 1
    assert "| shards, 2 | 100,000 | 2,000,000 | 41 | 900 | 2,000 | 700 -> 701 | 64, 96 | 1 |" in page


def test_a_compiled_program_has_a_row_that_says_modelled() -> None:
    workload = {"backbone": "swin_l", "size": 1024, "batch": 2, "precision": "bf16-mixed", "purpose": "training"}
    compiled = {
        "kind": "gpu_program",
        "workload": workload | {"devices": 8, "strategy": "fsdp", "device": "Accelerator 1"},
        "date": "2020-02-20",
        "machine": {"processor": "Modelled", "device": "Accelerator 1", "versions": "Revision abc, jax 1"},
        "step_ms": 116.4,
        "step_kernels": 13747,
        "moved_gb": 295.5,
        "tflop": 11.9,
        "kept_gib": 28.75,
        "update_ms": 15.08,
        "update_temp_mib": 2705,
        "largest_array_mib": 596,
        "largest_attention_mib": 64,
        "to_device_mb": 12.5,
        "to_host_mb": 0.19,
    }
    page = report.render([result(), compiled])
    assert "### Modelled, Accelerator 1\n\n2020-02-20. Revision abc, jax 1.\n" in page.split(report.GPU_PROGRAM)[1]
    assert (
        "| training, Swin-L 1024, batch 2, bfloat16, 8 GPUs fsdp | 116 | 13,747 | 295.5 | 11.90 | 28.8 | 15.1 / 2705 "
        "| 596 / 64 | 12.5 / 0.2 |"
    ) in page
    alone = compiled | {"workload": workload | {"devices": 1, "purpose": "inference", "precision": "32", "device": "A"}}
    assert "| inference, Swin-L 1024, batch 2, float32 | 116 | 13,747 | 295.5 | 11.90 |  |  | 596 / 64 |" in (
        report.render([result(), alone])
    )


def test_onnx_has_a_row_for_each_side() -> None:
    sides = {
        "our file": {"times_ms": [3.0, 1.0, 2.0], "share_within_1e-3": [1.0, 0.5], "nodes": 12, "megabytes": 3.5},
        "PyTorch": {"times_ms": [400.0], "share_within_1e-3": [1.0, 1.0]},
    }
    page = report.render([result(kind="onnx", sides=sides)])
    assert "| swin_t 512, batch 2: our file | 2 (1-3) | 12 | 3.5 | 100.00%, 50.00% |" in page
    assert "| swin_t 512, batch 2: PyTorch | 400 (400-400) |  |  | 100.00%, 100.00% |" in page


def test_the_command_writes_the_page(write: Any) -> None:
    page = write(a=result(), b=training())
    report.main()
    assert page.read_text() == report.render([result(), training()])


def test_no_results(write: Any) -> None:
    page = write()
    with pytest.raises(SystemExit, match="no results; run `make bench`"):
        report.main()
    assert not page.exists()


def test_disturbed_results_are_refused(write: Any) -> None:
    page = write(calm=result(others_share=0.05), noisy=result(others_share=0.12))
    with pytest.raises(SystemExit, match=r"during: noisy\.json \(12%\); measure again on a quiet machine"):
        report.main()
    assert not page.exists()
