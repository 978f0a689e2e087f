"""A training that is killed at random moments and started again is the one that was never killed."""

import os
import random
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from forked import CommandServer

from oneformer_jax.checkpoints import read as ckpt

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 600  # after which a training is ended
KILLS, STEPS = 10, 200


def start(server: CommandServer, workspace: Path, folder: Path, *keys: str) -> int:
    """The process of a training that saves every second step, so that it hardly ever does not write a checkpoint."""
    keys = (
        "train.num_epochs=1",
        "train.ema_decay=0.9",
        f"train.iters_per_epoch={STEPS}",
        "dataset.val.annotations=",
        "dataset.val.panoptic=",
        *keys,
    )
    keys = ("train.checkpoint_interval=2", "train.checkpoint_interval_unit=step", "train.checkpoint_keep=2", *keys)
    words = ["train", "-e", str(workspace / "spec.yaml"), f"results_dir={folder}", *keys]
    folder.mkdir(exist_ok=True)
    return server.start(words, os.environ, ROOT, (folder / "stdout", folder / "stderr"), SECONDS)


def finish(server: CommandServer, workspace: Path, folder: Path, *keys: str) -> None:
    assert server.wait(start(server, workspace, folder, *keys)) == 0, (folder / "stderr").read_text()


def lines_in(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.is_file() else 0


def read_all_checkpoints(run_dir: Path) -> int:
    """Reads every array of every checkpoint; how many there are."""
    folders = [path for path in (run_dir / "checkpoints").glob("*") if path.name.isdecimal()]
    for folder in folders:
        description = ckpt.load_description(folder)
        assert description.step == int(folder.name)
        params = ckpt.load_params(folder, description.shapes())
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    return len(folders)


def assert_equal_checkpoints(one: Path, other: Path, *items: str) -> None:
    """The best, or else the newest, of two runs."""
    for item in items:
        arrays = [
            ckpt.load_item(folder, item, ckpt.load_description(folder).shapes())
            for folder in (ckpt.find_checkpoint(one), ckpt.find_checkpoint(other))
        ]
        jax.tree.map(np.testing.assert_array_equal, *arrays)


@pytest.mark.tao(15)
def test_kill_in_the_middle_of_an_epoch_changes_nothing(
    trained: Path, command_server: CommandServer, tmp_path: Path
) -> None:
    """Two epochs of three steps, each with a validation: killed after the fifth step, before any checkpoint of it."""
    keys = (f"results_dir={tmp_path}", "train.checkpoint_interval=2", "train.checkpoint_interval_unit=step")
    run_dir, words = tmp_path / "train", ["train", "-e", str(trained.parent / "spec.yaml"), *keys]
    outputs = (tmp_path / "stdout", tmp_path / "stderr")
    process, deadline = command_server.start(words, os.environ, ROOT, outputs, SECONDS), time.monotonic() + SECONDS
    while lines_in(run_dir / "log.jsonl") < 6:  # five steps and a validation
        assert time.monotonic() < deadline, outputs[1].read_text()
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    assert command_server.wait(process) == -signal.SIGKILL
    newest = ckpt.latest(run_dir)
    assert newest is not None
    assert 2 <= int(newest.name) < 5
    assert read_all_checkpoints(run_dir) >= 1

    assert command_server.wait(command_server.start(words, os.environ, ROOT, outputs, SECONDS)) == 0, outputs[
        1
    ].read_text()
    assert (run_dir / "log.jsonl").read_bytes() == (trained / "train" / "log.jsonl").read_bytes()
    assert_equal_checkpoints(run_dir, trained / "train", "params")


@pytest.mark.prove  # `make test`: one kill, above
@pytest.mark.tao(15)
def test_kill_at_random_moments_changes_nothing(workspace: Path, command_server: CommandServer, tmp_path: Path) -> None:
    finish(command_server, workspace, tmp_path / "whole", "train.profile_steps=2")
    assert list((tmp_path / "whole" / "train" / "profile").rglob("*.xplane.pb"))
    expected = (tmp_path / "whole" / "train" / "log.jsonl").read_bytes()
    assert expected.count(b"\n") == STEPS

    rng, run_dir = random.Random(0), tmp_path / "killed" / "train"
    log, redone = run_dir / "log.jsonl", 0
    for kill in range(KILLS):
        # In lines of the log: after an odd one, which no checkpoint holds yet.
        moment = int(3 + (STEPS - 6) * (kill + rng.random()) / KILLS) | 1
        process, deadline = start(command_server, workspace, tmp_path / "killed"), time.monotonic() + SECONDS
        while lines_in(log) < moment:
            assert time.monotonic() < deadline, (tmp_path / "killed" / "stderr").read_text()
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        os.kill(process, signal.SIGKILL)
        assert command_server.wait(process) == -signal.SIGKILL
        done = lines_in(log)
        read_all_checkpoints(run_dir)
        newest = ckpt.latest(run_dir)
        assert newest is not None
        redone += done - int(newest.name)
    finish(command_server, workspace, tmp_path / "killed")
    assert redone > 0  # or nothing was lost, and nothing has been shown
    assert log.read_bytes() == expected
    assert read_all_checkpoints(run_dir) == 2
    assert_equal_checkpoints(run_dir, tmp_path / "whole" / "train", "params", "average")
