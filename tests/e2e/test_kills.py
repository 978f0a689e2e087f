"""A training that is killed at random moments and started again is the one that was never killed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from clusters import ended
from tiers import tier

from oneformer_jax.checkpoints import read as ckpt

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
KILLS, STEPS = (10, 200) if tier() == "prove" else (1, 10)


def start(workspace: Path, folder: Path, *keys: str) -> subprocess.Popen[bytes]:
    """A training that saves every second step, so that it hardly ever does not write a checkpoint."""
    keys = (
        "train.num_epochs=1",
        "train.ema_decay=0.9",
        f"train.iters_per_epoch={STEPS}",
        "dataset.val.annotations=",
        *keys,
    )
    keys = ("train.checkpoint_interval=2", "train.checkpoint_interval_unit=step", "train.checkpoint_keep=2", *keys)
    return subprocess.Popen(
        [sys.executable, ROOT / "cli.py", "train", "-e", workspace / "spec.yaml", f"results_dir={folder}", *keys],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors.decode()


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


@pytest.mark.tao(15)
def test_kill_at_random_moments_changes_nothing(workspace: Path, tmp_path: Path) -> None:
    finish(start(workspace, tmp_path / "whole", "train.profile_steps=2"))
    assert list((tmp_path / "whole" / "train" / "profile").rglob("*.xplane.pb"))
    expected = (tmp_path / "whole" / "train" / "log.jsonl").read_bytes()
    assert expected.count(b"\n") == STEPS

    rng, run_dir = random.Random(0), tmp_path / "killed" / "train"
    log, redone = run_dir / "log.jsonl", 0
    for kill in range(KILLS):
        moment = 3 + (STEPS - 6) * (kill + rng.random()) / KILLS  # in lines of the log: when not, where else
        process = start(workspace, tmp_path / "killed")
        with ended([process]):
            while lines_in(log) < int(moment):
                assert process.poll() is None, process.stderr and process.stderr.read().decode()
                time.sleep(0.002)
            time.sleep(rng.random() * 0.2)
        assert process.returncode == -signal.SIGKILL
        done = lines_in(log)
        read_all_checkpoints(run_dir)
        newest = ckpt.latest(run_dir)
        assert newest is not None
        redone += done - int(newest.name)
    finish(start(workspace, tmp_path / "killed"))
    assert redone > 0  # or nothing was lost, and nothing has been shown
    assert log.read_bytes() == expected
    assert read_all_checkpoints(run_dir) == 2
    for item in ("params", "average"):
        arrays = [
            ckpt.load_item(folder, item, ckpt.load_description(folder).shapes())
            for folder in (ckpt.find_checkpoint(run_dir), ckpt.find_checkpoint(tmp_path / "whole"))
        ]
        jax.tree.map(np.testing.assert_array_equal, *arrays)
