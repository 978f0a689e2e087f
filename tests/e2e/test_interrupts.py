"""Ctrl-C and SIGTERM: the step is finished and saved, the exit code and status.json tell, and the run goes on later."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from clusters import ended

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.tao(15)
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.prove)]
)
def test_an_interrupted_training_saves_its_step(
    workspace: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    arguments = ["train", "-e", workspace / "spec.yaml", f"results_dir={tmp_path}", "train.num_epochs=10000"]
    process = subprocess.Popen(
        [sys.executable, ROOT / "cli.py", *arguments, "dataset.val.annotations=", "train.checkpoint_interval=10000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert process.stdout is not None
    seen = []
    with ended([process]):
        for line in process.stdout:  # ends with the process if it never trains
            seen.append(line)
            if line.startswith("step "):
                process.send_signal(number)
                break
        rest, errors = process.communicate(timeout=120)
    assert process.returncode == code, "".join(seen) + rest + errors
    assert "saving step" in rest
    assert "Traceback" not in errors
    last = json.loads((tmp_path / "train" / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "FAILURE"
    assert last["message"].startswith("Train was interrupted")
    assert (tmp_path / "train" / "latest" / "params").is_dir()
