"""Training on two processes: what they leave behind, and what happens when one of them is stopped or lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from clusters import ROOT, ended, start_nodes
from tiers import tier

from oneformer_jax.checkpoints.read import load_description

pytestmark = [pytest.mark.slow, pytest.mark.long]

FSDP = "train.distributed_strategy=fsdp"
ENDLESS = (
    "dataset.val.annotations=",
    "dataset.val.panoptic=",
    "train.num_epochs=10000",
    "train.checkpoint_interval_unit=step",
)


def wait_for(condition: Callable[[], bool], processes: list[subprocess.Popen[str]], seconds: float = 500) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def saved(folder: Path, beyond: int = 0) -> bool:
    """Whether there is a checkpoint of a later step."""
    return (folder / "latest").exists() and int((folder / "latest").resolve().name) > beyond


def outputs(processes: list[subprocess.Popen[str]], seconds: float = 300) -> list[str]:
    return [process.communicate(timeout=seconds)[0] for process in processes]


def losses_of(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def statuses(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "status.json").read_text().splitlines()]


@pytest.fixture(scope="module")
def arguments(workspace: Path) -> list[str]:
    """A training on two devices; the batch over both is that of one process in the other tests."""
    return ["train", "-e", str(workspace / "spec.yaml"), "dataset.train.batch_size=2", "train.num_nodes=2", FSDP]


@pytest.mark.again
@pytest.mark.tao(12)
def test_two_processes_train_validate_and_leave_what_one_leaves(
    workspace: Path, arguments: list[str], tmp_path: Path, command_line
) -> None:
    """In `make prove` one process finds the same scores, and goes on with what they have split between them; four do,
    too. `make test` compares the scores in tao_behaviour/test_tao_results.py."""
    result = command_line("launch", "--num-processes", "2", "--", *arguments, f"results_dir={tmp_path}", timeout=1200)
    assert result.returncode == 0, result.stdout + result.stderr
    folder = tmp_path / "train"
    told = [line["message"] for line in statuses(folder) if line["verbosity"] != "WARNING"]
    assert told.count("Starting OneFormer train.") == told.count("Train finished successfully.") == 1
    assert told.count("Eval metrics generated.") == 2
    assert [line.split("│")[1].strip() for line in result.stdout.splitlines() if "cpu 0" in line] == ["0", "1"]
    assert result.stdout.count("checkpoints, curves and log:") == 1
    assert len(list((folder / "tensorboard").glob("events*"))) == 1
    metrics = load_description(folder / "checkpoints" / "6").metrics
    assert {"mIoU", "PQ", "AP"} <= set(metrics)

    if tier() != "prove":
        return
    scored = command_line(
        "evaluate", "-e", workspace / "spec.yaml", f"evaluate.checkpoint={folder / 'latest'}", f"results_dir={tmp_path}"
    )
    assert scored.returncode == 0, scored.stderr
    alone = json.loads((tmp_path / "evaluate" / "metrics.json").read_text())
    assert alone["num_images"] == 3
    assert {name: alone[name] for name in metrics} == pytest.approx(metrics, abs=1e-6)
    shutil.copytree(folder, tmp_path / "four" / "train", symlinks=True)
    further = ["-e", workspace / "spec.yaml", "train.num_epochs=3", "dataset.val.annotations=", "dataset.val.panoptic="]
    alone_again = command_line("train", *further, f"results_dir={tmp_path}")
    assert alone_again.returncode == 0, alone_again.stdout + alone_again.stderr
    assert "resuming from step 6" in alone_again.stdout

    four = [FSDP, "dataset.train.batch_size=1", "train.num_nodes=4", f"results_dir={tmp_path / 'four'}"]
    result = command_line("launch", "--num-processes", "4", "--", "train", *further, *four, timeout=1200)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "resuming from step 6" in result.stdout
    losses = [losses_of(place / "train") for place in (tmp_path, tmp_path / "four")]
    assert len(losses[0]) == 9
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


@pytest.mark.prove  # `make test`: training/test_distributed.py for the agreement, e2e/test_interrupts.py for the signal
def test_a_signal_to_one_stops_both_at_the_same_step_and_a_lost_one_ends_the_other(
    arguments: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "train"
    command = [*arguments, *ENDLESS, f"results_dir={tmp_path}"]
    processes = start_nodes("cli.py", [*command, "train.checkpoint_interval=3"], nodes=2)
    with ended(processes):
        wait_for(lambda: saved(folder), processes)
        processes[1].send_signal(signal.SIGTERM)
        texts = outputs(processes, seconds=300)
    assert [process.returncode for process in processes] == [143, 143], texts
    last = int((folder / "latest").resolve().name)
    # What stops after a step that is saved anyway has nothing left to save.
    assert (f"interrupted: saving step {last}" in texts[0]) == (last % 3 != 0), texts[0]
    assert statuses(folder)[-1]["message"] == "Train was interrupted (SIGTERM)."

    processes = start_nodes("cli.py", [*command, "train.checkpoint_interval=2"], nodes=2)
    with ended(processes):
        wait_for(lambda: saved(folder, last), processes)
        processes[1].kill()
        text = outputs(processes[:1], seconds=60)[0]
        outputs(processes[1:])
    assert processes[0].returncode != 0
    assert f"resuming from step {last}" in text


@pytest.mark.prove  # `make test`: app/cli/test_launch.py
def test_the_launcher_names_the_lost_process_and_goes_on(arguments: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "train"
    command = ["launch", "--num-processes", "2", "--max-restarts", "1", "--", *arguments, *ENDLESS]
    limits = [f"results_dir={tmp_path}", "train.checkpoint_interval=4", "train.optim.max_iter=16"]
    launcher = subprocess.Popen(
        [sys.executable, "cli.py", *command, *limits],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "COLUMNS": "160"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with ended([launcher]):
        wait_for(lambda: saved(folder), [launcher])
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        os.kill(int(children[1]), signal.SIGKILL)
        text = launcher.communicate(timeout=400)[0]
    assert launcher.returncode == 0, text
    assert "process 1 has ended (SIGKILL)" in text
    assert "restarting all processes from the last checkpoint (1 of 1)" in text
    assert "resuming from step" in text
    assert (folder / "latest").resolve().name == "16"
    assert statuses(folder)[-1]["status"] == "SUCCESS"
