"""Where trials run: which devices and cores each one gets."""

import os
import re
from pathlib import Path

import pytest

import oneformer_jax.app.automl.training as training
from oneformer_jax.app.automl.training import cpu_places, find_places, gpu_places
from oneformer_jax.devices import DeviceChoice


def visible(places: list[training.Place]) -> list[str]:
    return [place.environment["CUDA_VISIBLE_DEVICES"] for place in places]


def test_every_group_of_devices_has_a_trial() -> None:
    assert visible(gpu_places(4, DeviceChoice(1), 0, "")) == ["0", "1", "2", "3"]
    assert visible(gpu_places(5, DeviceChoice(2), 0, "")) == ["0,1", "2,3"]
    assert visible(gpu_places(4, DeviceChoice(1), 3, "")) == ["0", "1", "2"]
    assert visible(gpu_places(2, DeviceChoice(8), 0, "")) == ["0,1"]
    assert visible(gpu_places(2, DeviceChoice(1), 0, "5,GPU-8")) == ["5", "GPU-8"]
    assert visible(gpu_places(4, DeviceChoice(2, (3, 1)), 0, "4,5,6,7")) == ["7,5"]


def test_cores_are_shared_out_if_somebody_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [sorted(place.cores) for place in cpu_places([0, 1, 2, 4, 6], 2)] == [[0, 1], [2, 4, 6]]
    assert [sorted(place.cores) for place in cpu_places([0, 3], 5)] == [[0], [3]]
    monkeypatch.setattr(training, "count_devices", lambda: ("cpu", 1))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert [place.cores for place in find_places(DeviceChoice(1), 0)] == [frozenset()]
    assert [len(place.cores) for place in find_places(DeviceChoice(1), 2)] == [2, 2]


@pytest.mark.slow
def test_the_devices_are_counted_by_another_process() -> None:
    assert training.count_devices() == ("cpu", 1)


def test_the_process_that_counts_devices_takes_no_module_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("jax", "json"):
        (tmp_path / f"{name}.py").write_text("open('it ran', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    assert training.count_devices()[0] == "cpu"
    assert not (tmp_path / "it ran").exists()


def test_no_process_of_ours_looks_for_modules_in_the_current_folder() -> None:
    package = Path(training.__file__).resolve().parents[2]
    commands = re.compile(r"sys\.executable,\s*\"(-\w+)\"")
    found = [flag for path in package.rglob("*.py") for flag in commands.findall(path.read_text())]
    assert len(found) >= 3
    assert set(found) == {"-P"}
