"""Training, resuming and evaluation by the command line on a GPU, beside the CPU.

In `make prove`, without a GPU, all of it runs on the CPU: then only this file is shown to work.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from tiers import tier

pytestmark = [pytest.mark.gpu, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., None]


@pytest.fixture
def on_gpu(workspace: Path, tmp_path: Path) -> Command:
    """Runs an action on the GPU, or where it is told to, into the folder of a name."""

    default = "cuda" if tier() == "gpu" else "cpu"

    def run(action: str, name: str, *overrides: str, platform: str = default, before: tuple[str, ...] = ()) -> None:
        words = [*before, action, "-e", workspace / "spec.yaml", f"results_dir={tmp_path / name}", *overrides]
        # This process has a part of the GPU's memory, too.
        environment = os.environ | {"JAX_PLATFORMS": platform, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        process = subprocess.run(
            [sys.executable, ROOT / "cli.py", *words], env=environment, capture_output=True, text=True, check=False
        )
        assert process.returncode == 0, process.stdout + process.stderr

    return run


def losses(folder: Path) -> list[float]:
    """Of each step of a training."""
    lines = map(json.loads, (folder / "train" / "log.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def scores(folder: Path) -> dict[str, float]:
    content = json.loads((folder / "evaluate" / "metrics.json").read_text())
    return {name: content[name] for name in ("mIoU", "PQ", "AP")}


# A schedule that does not depend on the number of epochs.
TRAINING = ("train.optim.lr_scheduler=MultiStep", "dataset.val.annotations=", "dataset.val.panoptic=")


def test_a_training_goes_on_where_it_stopped_and_scores_as_on_the_cpu(on_gpu: Command, tmp_path: Path) -> None:
    """A GPU adds up in no fixed order, and each step makes the difference larger: losses of two trainings agree within
    two hundredths, scores of one checkpoint within one."""
    on_gpu("train", "whole", *TRAINING, "train.num_epochs=2")
    for epochs in (1, 2):
        on_gpu("train", "parts", *TRAINING, f"train.num_epochs={epochs}")
    whole, parts = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert len(whole) == len(parts) == 6
    np.testing.assert_allclose(parts, whole, rtol=0.02)
    checkpoint = f"evaluate.checkpoint={tmp_path / 'whole' / 'train'}"
    on_gpu("evaluate", "here", checkpoint)
    on_gpu("evaluate", "cpu", checkpoint, platform="cpu")
    assert scores(tmp_path / "here") == pytest.approx(scores(tmp_path / "cpu"), abs=0.01)


def test_two_processes_train_like_one(on_gpu: Command, tmp_path: Path) -> None:
    if tier() == "gpu" and len(jax.devices("gpu")) < 2:
        pytest.skip("needs two GPUs: NCCL refuses two processes on one")
    on_gpu("train", "one", *TRAINING, "train.num_epochs=1")
    halves = ("train.num_nodes=2", "dataset.train.batch_size=2")
    on_gpu("train", "two", *TRAINING, *halves, "train.num_epochs=1", before=("launch", "--num-processes", "2", "--"))
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=0.02)
