"""Ctrl-C and SIGTERM: the step is finished and saved, the exit code and status.json tell, and the run goes on later."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clusters import ended
from forked import CommandServer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


KEYS = (
    "dataset.val.annotations=",
    "dataset.val.panoptic=",
    "dataset.train.num_workers=5",
    "train.checkpoint_interval=10000",
    "train.num_epochs=1",
)
STEPS, MOMENTS = 1200, 20
SECONDS = 300  # after which a training is ended


def start(workspace: Path, folder: Path) -> subprocess.Popen[bytes]:
    """A training with five worker processes, in a process group of its own."""
    words = ["train", "-e", workspace / "spec.yaml", f"results_dir={folder}", *KEYS, f"train.iters_per_epoch={STEPS}"]
    folder.mkdir(exist_ok=True)
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as errors:
        return subprocess.Popen(
            ["env", "--default-signal=HUP", sys.executable, ROOT / "cli.py", *words],  # nohup may be around the tests
            stdout=out,
            stderr=errors,
            cwd=ROOT,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            start_new_session=True,
        )


def lines_in(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.is_file() else 0


def group_is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.prove  # the next test, and that of workers in tests/data/test_pipeline.py, show its parts in `make test`
def test_signals_to_the_group_at_random_moments_save_once_and_change_nothing(workspace: Path, tmp_path: Path) -> None:
    whole, run = start(workspace, tmp_path / "whole"), tmp_path / "run" / "train"
    with ended([whole]):
        assert whole.wait(timeout=900) == 0, (tmp_path / "whole" / "stderr").read_text()
    rng = random.Random(0)
    for moment in range(MOMENTS):
        number, before = rng.choice((signal.SIGINT, signal.SIGTERM, signal.SIGHUP)), lines_in(run / "log.jsonl")
        started = lines_in(run / "status.json")
        process = start(workspace, run.parent)
        with ended([process]):
            # Every fourth one while the training starts, the others some steps later.
            steps = 0 if moment % 4 == 0 else rng.randrange(1, 12)
            while lines_in(run / "status.json") == started or lines_in(run / "log.jsonl") < before + steps:
                assert process.poll() is None, (run.parent / "stderr").read_text()
                time.sleep(0.01)
            time.sleep(rng.random() * (0.2 if steps else 20))
            os.killpg(process.pid, number)
            assert process.wait(timeout=120) == 128 + number, (run.parent / "stderr").read_text()
        errors = (run.parent / "stderr").read_text()
        assert "Traceback" not in errors
        assert "-> run the same command again" in errors.rstrip().splitlines()[-1]
        last = json.loads((run / "status.json").read_text().splitlines()[-1])
        assert last["message"].startswith("Train was interrupted")
        if done := lines_in(run / "log.jsonl"):
            assert (run / "latest").resolve().name == str(done)
        deadline = time.monotonic() + 20
        while group_is_there(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not group_is_there(process.pid)
    rest = start(workspace, run.parent)
    with ended([rest]):
        assert rest.wait(timeout=900) == 0, (run.parent / "stderr").read_text()
    assert (run / "log.jsonl").read_bytes() == (tmp_path / "whole" / "train" / "log.jsonl").read_bytes()


@pytest.mark.tao(15)
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.prove)]
)
def test_an_interrupted_training_saves_its_step(
    workspace: Path, tmp_path: Path, command_server: CommandServer, number: signal.Signals, code: int
) -> None:
    words = ["train", "-e", str(workspace / "spec.yaml"), f"results_dir={tmp_path}", "train.num_epochs=10000"]
    keys = ["dataset.val.annotations=", "dataset.val.panoptic=", "train.checkpoint_interval=10000"]
    outputs, deadline = (tmp_path / "stdout", tmp_path / "stderr"), time.monotonic() + SECONDS
    process = command_server.start([*words, *keys], os.environ, ROOT, outputs, SECONDS)
    while not lines_in(tmp_path / "train" / "log.jsonl"):
        assert time.monotonic() < deadline, outputs[1].read_text()
        time.sleep(0.02)
    os.kill(process, number)
    ended_with = command_server.wait(process)
    rest, errors = (output.read_text() for output in outputs)
    assert ended_with == code, rest + errors
    assert "ending and saving after this step" in rest
    assert "saving step" in rest
    assert "Traceback" not in errors
    saved = (tmp_path / "train" / "latest").resolve().name
    assert errors.endswith(f"\n  -> run the same command again: it goes on from step {saved}\n")
    last = json.loads((tmp_path / "train" / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "FAILURE"
    assert last["message"].startswith("Train was interrupted")
    assert (tmp_path / "train" / "latest" / "params").is_dir()
