"""Child processes that run the installed package: its command line, the signals and the GPUs that reach them.

Nothing here depends on the current folder, which is the user's, nor on how this process was started.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from oneformer_jax.stopping import STOP_SIGNALS, handling

_PACKAGE = Path(__file__).resolve().parents[2]

CONFIGS = next(folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir())
"""Specs, and in `skill/` what TAO's tools read: inside an installed package, at the top of a checkout."""

# -P: no file of the current folder takes the place of a module.
COMMAND_LINE = (sys.executable, "-P", "-m", "oneformer_jax")
TRIAL = (sys.executable, "-P", "-m", "oneformer_jax.app.cli.trial")

AGAIN = "ONEFORMER_AGAIN"
"""Names the variable that tells an action which command goes on with it, where that is not the one that began it."""

Process = subprocess.Popen[bytes]


class Children:
    """The processes that get the signals of this one; `signals` are those that came so far."""

    def __init__(self) -> None:
        self.signals: list[int] = []
        self._processes: Sequence[Process] = ()

    def watch(self, processes: Sequence[Process]) -> None:
        """From now on signals go to these processes, and so do those that came before."""
        self._processes = processes
        for number in self.signals:
            self._send(number)

    def forward(self, number: int, _: object) -> None:
        """Handles a signal of this process."""
        self.signals.append(number)
        self._send(number)

    def _send(self, number: int) -> None:
        for process in self._processes:
            process.send_signal(number)  # which does nothing where it has ended


@contextmanager
def forwarding(signals: Sequence[signal.Signals] = STOP_SIGNALS) -> Iterator[Children]:
    """While it holds, the signals that ask to stop are for the children: what they mean is decided there."""
    children = Children()
    answering = signal.set_wakeup_fd(-1)
    try:
        with handling(children.forward, signals):
            yield children
    finally:
        signal.set_wakeup_fd(answering)


def environment() -> dict[str, str]:
    """The variables of this process, for a child that is to run the same code: a checkout may not be installed."""
    root = _PACKAGE.parent
    variables = dict(os.environ)
    if root.name not in ("site-packages", "dist-packages"):
        others = variables.get("PYTHONPATH", "").split(os.pathsep)
        variables["PYTHONPATH"] = os.pathsep.join([str(root), *(it for it in others if it not in ("", str(root)))])
    return variables


def gpu_names(count: int, visible: str) -> list[str]:
    """What CUDA calls the GPUs here; `visible` is CUDA_VISIBLE_DEVICES of this process, "" where all `count` are."""
    return [name.strip() for name in visible.split(",") if name.strip()] or [str(index) for index in range(count)]


def whole_groups(indices: Sequence[int], size: int) -> list[list[int]]:
    """As many groups of `size` as there are whole ones, in order."""
    return [list(indices[start : start + size]) for start in range(0, len(indices) - size + 1, size)]
