"""Several processes on this machine that take each other for nodes, as a cluster would start them."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_nodes(
    script: str | Path, arguments: Sequence[str | Path], *, nodes: int, devices: int = 1
) -> list[subprocess.Popen[str]]:
    """The processes, of so many devices each; what they print is theirs to read."""
    port, environment = free_port(), os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "COLUMNS": "160"}
    environment |= {"JAX_NUM_CPU_DEVICES": str(devices)}
    if nodes > 1:
        environment |= {"WORLD_SIZE": str(nodes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            [sys.executable, str(script), *map(str, arguments)],
            env=environment | {"NODE_RANK": str(node)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for node in range(nodes)
    ]


@contextmanager
def ended(processes: Sequence[subprocess.Popen[Any]]) -> Iterator[None]:
    """Leaves none of them behind, nor their pipes, whatever happens meanwhile."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            with process:  # closes its pipes and waits for it
                pass
