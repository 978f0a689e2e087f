"""A thousand images, trained on by the train action: memory stays, and each number of pair slots is compiled once."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import large_dataset
from benchmarks.large_dataset import Step, late_compilations


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Takes back what a measurement sets for its process."""
    for name in ("ONEFORMER_CACHE_DIR", "JAX_PLATFORMS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    yield
    monkeypatch.undo()


@pytest.mark.prove  # `make test`: by hand below
def test_nothing_is_compiled_after_the_first_use_of_a_number_of_slots(tmp_path: Path) -> None:
    large_dataset.make(tmp_path / "data", 1000, "shards")
    found = large_dataset.measure(tmp_path, large_dataset.keys_of(tmp_path / "data", "shards"), steps=40)
    assert found["steps"] == 40
    assert len(found["pair_slots"]) > 1, "or nothing would have to be compiled later"
    assert found["late_compilations"] == []
    assert found["compilations"] > len(found["pair_slots"])
    early, late = found["memory_mib"]
    assert late - early < 100
    assert early <= found["peak_mib"]


def test_late_compilations_by_hand() -> None:
    slots = [64, 64, 96, 64, 96, 96, 64]
    compilations = [5, 8, 8, 9, 9, 10, 10]
    steps = [Step(0.0, *pair, 0.0) for pair in zip(slots, compilations, strict=True)]
    # The first step compiles, the third for its new number of slots; the fifth has no reason to.
    assert late_compilations(steps) == [4]


def test_segments_of_the_published_size() -> None:
    assert sum(map(large_dataset.segments_of, range(large_dataset.IMAGES))) == 2_000_000
