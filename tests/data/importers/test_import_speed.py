"""How fast masks are imported, and in how much memory: 150 pictures of 512 x 512 a second on two cores."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
A_SECOND = 150
DIFFERENT = 40
SCRIPT = """
import resource, sys, time
from pathlib import Path
from oneformer_jax.data.importers.formats import recognised
from oneformer_jax.data.importers.reader import Options
from oneformer_jax.data.importers.written import write_split
source, folder = map(Path, sys.argv[1:])
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
at_start, before = peak(), resource.getrusage(resource.RUSAGE_SELF)
start = time.monotonic()
reader = recognised(source)[0].open(source, Options(), lambda done: None)
counts = write_split(folder, reader, reader.items)
seconds = time.monotonic() - start
used = resource.getrusage(resource.RUSAGE_SELF)
cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
assert not counts.left_out and not counts.notes
print(len(reader.items), seconds, cpu, peak() - at_start)
"""


def write(source: Path, count: int) -> Path:
    """Pictures of noise with masks of 21 classes in blocks and circles; `DIFFERENT` of them, linked again and again."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks", "files"):
        (source / name).mkdir(parents=True)
    for number in range(DIFFERENT):
        mask = cv2.resize(rng.integers(0, 21, (12, 12), np.uint8), (512, 512), interpolation=cv2.INTER_NEAREST)
        for _ in range(10):
            center, radius = rng.integers(0, 512, 2).tolist(), int(rng.integers(10, 90))
            cv2.circle(mask, center, radius, int(rng.integers(21)), -1)
        cv2.imwrite(str(source / "files" / f"{number}.jpg"), rng.integers(0, 255, (512, 512, 3), np.uint8))
        cv2.imwrite(str(source / "files" / f"{number}.png"), mask)
    for number in range(count):
        for name, suffix in (("images", "jpg"), ("masks", "png")):
            file = source / "files" / f"{number % DIFFERENT}.{suffix}"
            os.link(file, source / name / f"{number:06d}.{suffix}")
    for file in (source / "files").iterdir():
        file.unlink()
    return source


def imported(source: Path, folder: Path) -> tuple[int, float, float, float]:
    """Pictures, seconds, CPU seconds, and MiB of memory that the import took, in a process like the command's."""
    from oneformer_jax.__main__ import ALLOCATOR

    command = [sys.executable, "-c", SCRIPT, str(source), str(folder)]
    environment = os.environ | {"GLIBC_TUNABLES": ALLOCATOR, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    count, seconds, cpu, memory = map(float, done.stdout.split())
    speed = f"{count / seconds:.0f} a second, {1000 * cpu / count:.1f} ms of CPU each"
    print(f"\n{count:.0f} pictures: {speed}, {memory:.0f} MiB")
    return int(count), seconds, cpu, memory


@pytest.mark.slow
def test_the_time_of_a_picture(tmp_path: Path) -> None:
    """Which is CPU time: other processes may share the cores."""
    count, _, cpu, _ = imported(write(tmp_path / "source", 200), tmp_path / "data")
    assert cpu / count < 2 / A_SECOND


@pytest.mark.prove
def test_20000_masks(tmp_path: Path) -> None:
    """The large sibling of the above: the memory of 20,000 pictures is that of 2,000, but for their names."""
    _, _, _, few = imported(write(tmp_path / "few", 2_000), tmp_path / "few_data")
    count, _, cpu, many = imported(write(tmp_path / "many", 20_000), tmp_path / "many_data")
    assert cpu / count < 2 / A_SECOND
    assert many < few + 100
