"""SIGINT and SIGTERM during a training: the first one waits for the step to end, the second one for nothing."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECONDS_TO_UNWIND = 5.0


class StopRequest:
    """The signal that asked the loop to stop, if any."""

    signal: int | None = None


def ended_by(number: int) -> BaseException:
    """What to raise for the process to end with the exit code of a signal."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """SIGINT and SIGTERM are noted instead of raised: a step that gave its buffers away must not be cut in two.

    The second one is raised at once, and ends the process where that does not within seconds: because the main thread
    is in a long computation, which Python's handlers wait for, or because a checkpoint is being written. Call it in
    the main thread.
    """
    request = StopRequest()
    previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        again, request.signal = request.signal is not None, number
        if again:
            raise ended_by(number)

    # Each signal is a byte here as soon as it arrives, whatever the main thread is doing.
    arrived, written = socket.socketpair()
    written.setblocking(False)
    threading.Thread(target=_end_at_the_second, args=(arrived,), daemon=True).start()
    previous_fd = signal.set_wakeup_fd(written.fileno())
    try:
        for number in previous:
            signal.signal(number, note)
        yield request
    finally:
        signal.set_wakeup_fd(previous_fd)
        written.close()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end_at_the_second(arrived: socket.socket) -> None:
    stops = 0
    with arrived:
        while received := arrived.recv(1):  # empty when the other end is closed
            stops += received[0] in STOP_SIGNALS
            if stops == 2:
                threading.Event().wait(SECONDS_TO_UNWIND)
                os._exit(128 + received[0])
