"""Whatever happened to a file, its reader ends within its bounds, and with an error that says so or none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from readers import READERS, SLOW, fuzz

HERE = Path(__file__).parent
FEW, MANY = 25, 500


def count(name: str, most: int) -> range:
    return range(max(3, round(most * SLOW.get(name, 1))))


@pytest.mark.parametrize("name", READERS)
def test_some_damage(name: str, tmp_path: Path) -> None:
    assert fuzz(name, count(name, FEW), tmp_path) == []


@pytest.mark.prove  # its small sibling: test_some_damage
@pytest.mark.parametrize("name", READERS)
def test_much_damage_within_time_and_memory(name: str) -> None:
    """5,000 files in all, in processes of their own: a crash ends one of these."""
    seeds = count(name, MANY)
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    result = subprocess.run(
        [sys.executable, str(HERE / "readers.py"), name, "1000", str(len(seeds))],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=3000,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads(result.stdout.splitlines()[-1]) == []


def test_five_thousand_files_are_damaged() -> None:
    assert sum(len(count(name, MANY)) for name in READERS) >= 5000
