"""SIGINT and SIGTERM during a training: the first one waits for the step to end, the second one for nothing.

Where several processes train they agree on the step after which all of them stop.
"""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax

from oneformer_jax.training.distributed import coordination_client

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
SECONDS_TO_UNWIND = 5.0
STOP = "oneformer_jax/stop/"


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


def agreed_stop(own: int | None, step: int) -> int | None:
    """The signal after which all processes stop before update `step`, None: go on. `own`: what this one has received.

    Call it before every step. A process that has a signal names the next step before it starts this one. None of the
    others can be further: in every step all wait for each other's numbers of segments.
    """
    client = coordination_client()
    if client is None:
        return own
    if own is not None and not client.key_value_dir_get(STOP):
        client.key_value_set(f"{STOP}{jax.process_index()}", f"{own} {step + 1}")
    stops = [text.split() for _, text in client.key_value_dir_get(STOP)]
    number, last = min(((int(number), int(at)) for number, at in stops), key=lambda stop: stop[1], default=(0, 0))
    return number if stops and step >= last else None
