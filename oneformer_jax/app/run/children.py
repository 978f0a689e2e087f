"""Child processes: the signals that reach them, and the GPUs that each of them sees."""

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

VISIBLE = "CUDA_VISIBLE_DEVICES"
FORWARDED = (signal.SIGINT, signal.SIGTERM)

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
def forwarding() -> Iterator[Children]:
    """While it holds, SIGINT and SIGTERM are for the children: what they mean is decided there."""
    children = Children()
    before = {number: signal.signal(number, children.forward) for number in FORWARDED}
    try:
        yield children
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def gpu_names(count: int, visible: str) -> list[str]:
    """What CUDA calls the GPUs here; `visible` is CUDA_VISIBLE_DEVICES of this process, "" where all `count` are."""
    return [name.strip() for name in visible.split(",") if name.strip()] or [str(index) for index in range(count)]


def whole_groups(indices: Sequence[int], size: int) -> list[list[int]]:
    """As many groups of `size` as there are whole ones, in order."""
    return [list(indices[start : start + size]) for start in range(0, len(indices) - size + 1, size)]
