"""Several processes on this machine: started together, watched, and started again from the last checkpoint."""

import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console

from oneformer_jax.app.run.children import COMMAND_LINE, environment, forwarding, gpu_names, whole_groups
from oneformer_jax.devices import VISIBLE, nvidia_gpus
from oneformer_jax.errors import OneFormerError
from oneformer_jax.stopping import STOP_SIGNALS

GRACE_SECONDS = 10.0
"""How long the others may run after one has ended: they may be saving, or reporting why they end too."""
STOPPED = tuple(128 + number for number in STOP_SIGNALS)
EXPLAINED = (1, 2, *STOPPED)
"""Exit codes that a restart would not change: the reason has been reported, or somebody wanted it."""


class Ending(NamedTuple):
    """A process has ended with this code; below 0: by that signal."""

    process: int
    code: int

    def __str__(self) -> str:
        how = signal.Signals(-self.code).name if self.code < 0 else f"exit code {self.code}"
        return f"process {self.process} has ended ({how})"


def for_training(command: Sequence[str]) -> Sequence[str]:
    """The command. Raises OneFormerError where it is not `train`: no other divides its work among processes."""
    if command[0] != "train":
        raise OneFormerError(
            f"launch starts several processes of `train` alone, found `{command[0]}`",
            hint=f"run `{command[0]}` without launch, as one process",
        )
    return command


def launch(command: Sequence[str], num_processes: int, max_restarts: int, console: Console) -> int:
    """Runs `oneformer command` as so many processes, each standing for a node, until all have ended; returns a code.

    When one is lost, the others are ended and all start again, at most `max_restarts` times. Signals that ask to stop
    are passed on. Raises OneFormerError where the GPUs cannot be shared evenly.
    """
    shares = _gpu_shares(num_processes)
    with forwarding() as children:
        for restart in range(max_restarts + 1):
            processes = _start(command, num_processes, shares)
            children.watch(processes)
            endings = _watched(processes, console)
            code = next((ending.code for ending in endings if ending.code), 0)
            if code in (0, *EXPLAINED) or children.signals or restart == max_restarts:
                break
            console.print(f"restarting all processes from the last checkpoint ({restart + 1} of {max_restarts})")
    return code if code >= 0 else 128 - code


def _start(command: Sequence[str], count: int, shares: list[dict[str, str]]) -> list[subprocess.Popen[bytes]]:
    port = str(_free_port())
    together = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        subprocess.Popen(
            [*COMMAND_LINE, *command],
            env=environment() | together | {"NODE_RANK": str(index)} | shares[index],
            start_new_session=True,  # Ctrl-C of the terminal comes from here alone
        )
        for index in range(count)
    ]


def _watched(processes: list[subprocess.Popen[bytes]], console: Console) -> list[Ending]:
    """How the processes ended, in that order: once one fails, the others have some seconds left."""
    ended: queue.Queue[Ending] = queue.Queue()

    def wait(index: int) -> None:
        ended.put(Ending(index, processes[index].wait()))

    for index in range(len(processes)):
        threading.Thread(target=wait, args=(index,), daemon=True).start()
    endings: list[Ending] = []
    deadline: float | None = None
    while len(endings) < len(processes):
        try:
            ending = ended.get(timeout=None if deadline is None else max(deadline - time.monotonic(), 0.1))
        except queue.Empty:
            late = sorted(set(range(len(processes))) - {ending.process for ending in endings})
            console.print(f"ending process {', '.join(map(str, late))}, which cannot continue alone")
            for index in late:
                processes[index].kill()
            deadline = None
            continue
        endings.append(ending)
        if ending.code and deadline is None:
            console.print(str(ending), style="yellow")
            deadline = time.monotonic() + GRACE_SECONDS
    return endings


def _gpu_shares(count: int) -> list[dict[str, str]]:
    """For each process the variable that shows it its part of the GPUs; nothing where there are none."""
    names = gpu_names(nvidia_gpus(), os.environ.get(VISIBLE, ""))
    if len(names) % count:
        raise OneFormerError(f"{len(names)} GPUs cannot be divided evenly among {count} processes")
    if not names:
        return [{}] * count
    groups = whole_groups(range(len(names)), len(names) // count)
    return [{VISIBLE: ",".join(names[index] for index in group)} for group in groups]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
