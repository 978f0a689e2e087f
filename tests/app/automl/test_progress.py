"""How far a trial has come, by the files of its training."""

import json
import signal
from pathlib import Path

import pytest

from oneformer_jax.app.automl.training import progress, why_it_failed


def write(path: Path, *lines: object, tail: str = "") -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)


def test_scores_come_from_validations_and_epochs_from_the_status(tmp_path: Path) -> None:
    assert progress(tmp_path, "mIoU").scores == {}
    write(
        tmp_path / "log.jsonl",
        {"step": 3, "kind": "validation", "mIoU": 0.1},
        {"step": 4, "kind": "train", "loss": 3.0},
        {"step": 6, "kind": "validation", "mIoU": 0.4},
        {"step": 8, "kind": "validation", "mIoU": None},
        {"step": 9, "kind": "validation", "mIoU": 0.3},
        tail='{"step": 12, "kind": "valid',
    )
    in_progress = [{"epoch": epoch, "step": 3 * epoch + 3, "status": "RUNNING"} for epoch in range(3)]
    write(tmp_path / "status.json", {"status": "STARTED"}, *in_progress, tail='{"epoch": 3')
    found = progress(tmp_path, "mIoU")
    assert found.scores == {3: 0.1, 6: 0.4, 9: 0.3}
    assert found.epochs == {1: 3, 2: 6, 3: 9}
    assert [found.best_until(step, 1) for step in (2, 3, 9)] == [None, 0.1, 0.4]
    assert found.best_until(None, -1) == 0.1
    assert (found.step_of_best(1), found.step_of_best(-1)) == (6, 3)


def test_the_loss_of_an_epoch_is_a_metric_too(tmp_path: Path) -> None:
    write(
        tmp_path / "status.json",
        {"epoch": 0, "step": 3, "status": "RUNNING"},
        {"status": "RUNNING", "kpi": {"train_loss": 5.0}},
        {"status": "RUNNING", "kpi": {"mIoU": 0.5}},
        {"epoch": 1, "step": 6, "status": "RUNNING"},
        {"status": "RUNNING", "kpi": {"train_loss": 4.0}},
        {"status": "SUCCESS", "kpi": {"train_loss": 4.0, "mIoU": 0.5}},
    )
    assert progress(tmp_path, "train_loss").scores == {3: 5.0, 6: 4.0}


def test_why_a_trial_failed(tmp_path: Path) -> None:
    assert why_it_failed(tmp_path, -signal.SIGKILL) == "ended by SIGKILL: the system does this when memory runs out"
    assert why_it_failed(tmp_path, -signal.SIGSEGV) == "ended by SIGSEGV"
    assert why_it_failed(tmp_path, 3) == "ended with exit code 3"
    write(tmp_path / "status.json", {"status": "FAILURE", "message": "out of memory"})
    assert why_it_failed(tmp_path, 1) == "out of memory"


@pytest.mark.parametrize(
    "damage",
    [b"\xff\n", b"[1]\n", b'{"kind": "validation"}\n', b'{"step": "2"}\n', b"[" * 100_000, b"\n", b'{"step": 1}\n'],
)
def test_damaged_lines_are_left_out(tmp_path: Path, damage: bytes) -> None:
    good = b'{"step": 3, "kind": "validation", "mIoU": 0.1}\n'
    (tmp_path / "log.jsonl").write_bytes(good + damage + b"\n" + good.replace(b"3", b"6"))
    status = [
        {"status": "RUNNING", "epoch": "a", "step": 1},
        {"epoch": 0, "step": 3},
        {"kpi": 5},
        {"kpi": {"train_loss": 2}},
    ]
    write(tmp_path / "status.json", *status)
    assert progress(tmp_path, "mIoU").scores == {3: 0.1, 6: 0.1}
    assert progress(tmp_path, "train_loss").epochs == {1: 3}
