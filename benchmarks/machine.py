"""On what something was measured: processor, memory, versions, and the most memory that a process held."""

import os
import platform
import resource
import sys
from importlib.metadata import version
from pathlib import Path


def cores() -> int:
    """The processors that this process may use: the threads of both sides."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, str]:
    """Name of the processor, cores, memory, and versions of what takes part."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ("jax", "jaxlib", "flax", "torch", "transformers", "numpy")
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    return {
        "processor": f"{names[0] if names else platform.processor()}, {cores()} cores, {memory:.0f} GiB",
        "versions": f"Python {platform.python_version()}, {versions}",
    }


def busy_seconds() -> float:
    """How long the processors that this process may use have worked, on anything; 0 if unknown."""
    statistics = Path("/proc/stat")
    if not statistics.is_file():
        return 0.0
    usable = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    for line in statistics.read_text().splitlines():
        name, *counts = line.split()
        if name in usable:
            user, nice, system, _idle, _wait, irq, softirq, steal = map(int, counts[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


def process_seconds(pid: int) -> float:
    """Processor time of all threads of a process and of those it has waited for; 0 if unknown."""
    statistics = Path(f"/proc/{pid}/stat")
    if not statistics.is_file():
        return 0.0
    ticks = map(int, statistics.read_text().rpartition(")")[2].split()[11:15])
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def peak_memory_mib() -> float:
    """The most physical memory that this process has held so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # on Linux the figure of getrusage begins with that of the process that started this one
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
