"""The log of a run that goes on: what is kept of it, whatever has happened to the file."""

import json
import logging
from pathlib import Path

import pytest

from oneformer_jax.training.logbook import Logbook, draw_curves, read_log


class Silent:
    def step(self, step: int, scalars: object, images_per_second: float) -> None: ...

    def message(self, text: str) -> None: ...


def lines(*steps: int) -> str:
    return "".join(json.dumps({"step": step, "kind": "train", "loss": 2.0, "lr": 1e-3}) + "\n" for step in steps)


@pytest.mark.parametrize(
    "damage", ["\udcff\n", "[1]\n", '{"step": 3, "loss": 1}\n', "{\n", '{"step": 3, "kind": "train"}\n']
)
def test_a_run_that_goes_on_keeps_the_records_around_a_damaged_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes((lines(1, 2) + damage + lines(4, 5, 6)).encode(errors="surrogateescape"))
    with caplog.at_level(logging.WARNING):
        Logbook(tmp_path, start_step=5, reporter=Silent()).close()
    assert [record["step"] for record in read_log(path)] == [1, 2, 4, 5]
    assert "log.jsonl: 1 damaged lines are left out" in caplog.text
    draw_curves(path, tmp_path / "curves.png")


@pytest.mark.parametrize("end", ['{"step": 3', lines(3).rstrip()])
def test_a_last_line_without_an_end_is_nothing_to_tell(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, end: str
) -> None:
    (tmp_path / "log.jsonl").write_text(lines(1, 2) + end)
    with caplog.at_level(logging.WARNING):
        Logbook(tmp_path, start_step=2, reporter=Silent()).close()
    assert [record["step"] for record in read_log(tmp_path / "log.jsonl")] == [1, 2]
    assert not caplog.text


def test_a_file_in_place_of_the_folder_of_tensorboard_is_named(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("")
    with pytest.raises(OSError, match=r"exists|directory") as raised:
        Logbook(tmp_path, start_step=0, reporter=Silent())
    assert raised.value.filename == str(tmp_path / "tensorboard")
