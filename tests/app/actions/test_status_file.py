"""status.json: TAO's fields in TAO's order, strict JSON, one whole line per event."""

import errno
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneformer_jax.app.run import status as status_module
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.app.run.status import EpochLines, StatusFile, kpi, result_folder
from oneformer_jax.errors import OneFormerError

COMMON = ["date", "time", "status", "verbosity", "message"]


def lines_of(file: StatusFile) -> list[dict]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in file.path.read_text().splitlines()]


@pytest.fixture
def console() -> Screen:
    return Screen(record=True, width=200)


@pytest.fixture
def status(tmp_path: Path, console: Screen) -> StatusFile:
    return StatusFile(tmp_path, "train", console)


def test_date_and_time_have_no_leading_zeros(status: StatusFile, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    moment = time.struct_time((2026, 3, 7, 9, 5, 0, 5, 66, 0))
    monkeypatch.setattr(status_module.time, "localtime", lambda: moment)
    status.write("STARTED", "Starting OneFormer train.")
    assert status.path.read_text() == (
        '{"date": "3/7/2026", "time": "9:5:0", "status": "STARTED", "verbosity": "INFO", '
        '"message": "Starting OneFormer train."}\n'
    )


def test_an_epoch_has_its_fields_first_and_scores_come_last(status: StatusFile) -> None:
    EpochLines(status, epochs=3, steps_per_epoch=10, total_steps=30, start=10)(20, 1.5)
    epoch, loss = lines_of(status)
    timing = ["epoch", "step", "max_epoch", "max_step", "time_per_epoch", "time_per_step", "eta"]
    assert list(epoch) == [*timing, *COMMON]
    assert [epoch[name] for name in timing[:4]] == [1, 20, 2, 30]
    assert all(re.fullmatch(r"\d+:\d\d:\d\d(\.\d{6})?", epoch[name]) for name in timing[4:])
    assert (epoch["status"], epoch["message"]) == ("RUNNING", "Training loop in progress")
    assert list(loss) == [*COMMON, "kpi"]
    assert (loss["message"], loss["kpi"]) == ("Train metrics generated.", {"train_loss": 1.5})


def test_times_of_an_epoch(status: StatusFile, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(status_module.time, "monotonic", lambda: now[0])
    at_epoch_end = EpochLines(status, epochs=100, steps_per_epoch=10, total_steps=1000, start=0)
    now[0] += 3600.0
    at_epoch_end(10, 1.0)
    line = lines_of(status)[0]
    assert line["time_per_epoch"] == "1:00:00"
    assert line["time_per_step"] == "0:06:00"
    assert line["eta"] == "4 days, 3:00:00"


@pytest.mark.tao(13)
def test_a_score_that_is_not_defined_is_null(status: StatusFile) -> None:
    status.write("RUNNING", "Eval metrics generated.", kpi={"mIoU": 0.5, "IoU_ring": float("nan"), "IoU_x": None})
    assert lines_of(status)[0]["kpi"] == {"mIoU": 0.5, "IoU_ring": None, "IoU_x": None}


def test_scores_stand_where_they_were_measured_and_on_the_last_line(status: StatusFile) -> None:
    status.write("RUNNING", "Eval metrics generated.", kpi={"mIoU": 0.2, "PQ": 0.1})
    status.write("RUNNING", "Train metrics generated.", kpi={"train_loss": 3.0})
    status.write("RUNNING", "Eval metrics generated.", kpi={"mIoU": 0.4})
    status.write("RUNNING", "Training loop complete.")
    status.success()
    *_, complete, last = lines_of(status)
    assert "kpi" not in complete
    assert last["status"] == "SUCCESS"
    assert last["message"] == "Train finished successfully."
    assert last["kpi"] == {"mIoU": 0.4, "PQ": 0.1, "train_loss": 3.0}


def test_a_warning_is_on_the_screen_and_in_the_file(status: StatusFile, console: Screen) -> None:
    status.warning("a [key] of nothing")
    (line,) = lines_of(status)
    assert (line["status"], line["verbosity"], line["message"]) == ("RUNNING", "WARNING", "a [key] of nothing")
    assert "warning: a [key] of nothing" in console.export_text()


def test_a_line_that_does_not_fit_on_the_disk_leaves_none_of_itself(
    status: StatusFile, console: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    status.write("STARTED", "whole")
    before = status.path.read_text()

    class Full:
        def __init__(self, file) -> None:
            self.file, self.room = file, 10

        def write(self, data: bytes) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written, self.room = self.file.write(data[: self.room]), 0
            return written

        def __getattr__(self, name: str):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_) -> None:
            self.file.close()

    real = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *arguments, **options: Full(real(path, *arguments, **options)))
    with pytest.raises(OSError, match="No space left"):
        status.write("RUNNING", "half")
    status.failure("the reason")  # must not raise
    monkeypatch.undo()
    assert status.path.read_text() == before
    assert "No space left" in console.export_text()


@pytest.mark.slow
@pytest.mark.tao(13)
@given(st.text(), st.dictionaries(st.text(min_size=1), st.none() | st.floats(), max_size=4))
def test_every_line_is_strict_json_whatever_it_says(
    tmp_path_factory: pytest.TempPathFactory, message: str, scores: dict
) -> None:
    status = StatusFile(tmp_path_factory.mktemp("status"), "train", Screen(quiet=True))
    status.write("RUNNING", message, kpi=scores)
    (line,) = lines_of(status)
    assert line["message"] == message
    assert line.get("kpi", {}).keys() == scores.keys()


def test_the_result_folder(tmp_path: Path) -> None:
    assert result_folder(str(tmp_path), "", "train") == tmp_path / "train"
    assert result_folder(str(tmp_path), str(tmp_path / "mine"), "train") == tmp_path / "mine"
    assert (tmp_path / "mine").is_dir()
    with pytest.raises(OneFormerError, match="results_dir is not set"):
        result_folder("", "", "train")
    (tmp_path / "file").touch()
    with pytest.raises(OneFormerError, match=r"file/train: result folder cannot be made: Not a directory\n  -> set"):
        result_folder(str(tmp_path / "file"), "", "train")


METRICS = {
    "num_images": 3,
    "num_images/north": 2,
    "geometry": "short_edge 800",
    "mIoU": 0.5,
    "pixel_accuracy": 0.75,
    "PQ": None,
    "mIoU/north": 0.25,
    "pixel_accuracy/north": 1.0,
    "per_class": {"traffic light": {"IoU": 0.1, "PQ": 0.2}, "sky": {"IoU": None, "PQ": None}},
}


def test_scores_have_the_names_of_tao() -> None:
    whole = {"mIoU": 0.5, "ACC_all": 0.75, "PQ": None}
    without_prefix = {"mIoU/north": 0.25, "ACC/north": 1.0, "IoU_traffic_light": 0.1, "IoU_sky": None}
    assert kpi(METRICS) == whole | without_prefix
    assert kpi(METRICS, prefix="test_") == {f"test_{name}": value for name, value in whole.items()} | without_prefix


def test_scores_without_classes_or_of_one_task() -> None:
    assert kpi({"num_images": 1, "PQ": 0.5}) == {"PQ": 0.5}
    assert kpi({"per_class": {"sky": {"PQ": 0.5}}}) == {}
