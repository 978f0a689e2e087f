"""A search by the command line, killed in the middle of a real training, and what it leaves."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from clusters import ended

from oneformer_jax.app.spec import load_spec
from oneformer_jax.checkpoints.read import find_checkpoint, load_description

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SEARCH = (
    "train.num_epochs=2",
    "train.iters_per_epoch=25",
    "automl.max_recommendations=2",
    "automl.algorithm=random",
    "automl.hyperparameters=[train.optim.lr]",
)


@pytest.mark.prove  # `make test`: test_search.py kills studies of stand-ins, and the jobs of test_jobs.py search
def test_a_search_that_is_killed_goes_on_from_the_checkpoint_of_its_trial(
    workspace: Path, tmp_path: Path, command_line: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    arguments = ["train", "--automl-policy", "on", "--spec", str(workspace / "spec.yaml"), f"results_dir={tmp_path}"]
    folder = tmp_path / "automl"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "cli.py"), *arguments, *SEARCH],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
    )
    first = folder / "trials" / "0000"
    with ended([process]):  # by a signal that it cannot catch
        wait_until(lambda: (first / "latest").exists() or process.poll() is not None)

    result = command_line(*arguments, *SEARCH)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "AutoML (policy on)" in result.stdout
    assert "resuming from step" in (first / "output.txt").read_text()
    results = json.loads((folder / "results.json").read_text())
    assert [trial["state"] for trial in results["trials"]] == ["complete"] * 2
    assert results["trials"][0]["values"] == {"train.optim.lr": 1e-3}

    best = results["best"]
    description = load_description(find_checkpoint(folder))
    assert description.metrics["mIoU"] == best["score"] == max(trial["score"] for trial in results["trials"])
    assert description.spec["train"]["optim"]["lr"] == best["values"]["train.optim.lr"]
    assert description.step == best["step"]
    assert load_spec(folder / "best_spec.yaml").train.optim.lr == best["values"]["train.optim.lr"]
    last = json.loads((folder / "status.json").read_text().splitlines()[-1])
    assert (last["status"], last["kpi"]) == ("SUCCESS", {"mIoU": best["score"]})

    again = command_line(*arguments, *SEARCH, "automl.max_recommendations=2")
    assert again.returncode == 0
    assert "resuming the study: 2 of 2 trials exist" in again.stdout


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
