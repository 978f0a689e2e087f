"""Signals that ask a process to stop: Ctrl-C, SIGTERM, and SIGHUP of a terminal that closes or of a scheduler.

One request may be several signals: shells, schedulers and launchers pass on what the whole group has got already. So
what follows the first one within a second belongs to it; a later one is somebody who does not want to wait.
"""

import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ONE_REQUEST = 1.0
"""Seconds from the first signal of a request to the last."""
SECONDS_TO_UNWIND = 5.0
SECONDS_TO_GO_ON = 1.0
"""After which what was raised is looked for: whatever has kept it from ending the process has done so by then."""

Answer = Callable[[int], None]
"""Says something about the first signal, in a thread of its own."""
_last_words: list[Callable[[int], None]] = []
_raising: list["_Raised"] = []
"""The blocks of `raised` that are running, the outermost first."""


class StopRequest:
    """The signal that asked to stop, if any."""

    signal: int | None = None
    _since = 0.0

    def note(self, number: int) -> bool:
        """Whether this signal is a new request: the first one, or one of somebody who does not want to wait."""
        now = time.monotonic()
        if self.signal is not None and now - self._since < ONE_REQUEST:
            return False
        self.signal, self._since = number, now if self.signal is None else self._since
        return True


def name_of(number: int) -> str:
    """What people call it."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def ended_by(number: int) -> BaseException:
    """What to raise for the process to end with the exit code of a signal."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


def signal_of(error: BaseException) -> int | None:
    """The signal that `ended_by` made this of, if it did."""
    if isinstance(error, KeyboardInterrupt):
        return signal.SIGINT
    code = error.code if isinstance(error, SystemExit) else None
    return code - 128 if isinstance(code, int) and code - 128 in STOP_SIGNALS else None


@contextmanager
def handling(
    handler: Callable[[int, FrameType | None], None], signals: Sequence[signal.Signals] = STOP_SIGNALS
) -> Iterator[None]:
    """Inside, the signals go to `handler`, but for SIGHUP where `nohup` has switched that off. In the main thread."""
    numbers = [it for it in signals if it != signal.SIGHUP or signal.getsignal(it) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


class _Raised:
    """What a block of `raised` knows of its signals."""

    def __init__(self, deliver: Callable[[int], None]) -> None:
        self.request, self._deliver = StopRequest(), deliver
        self._error: BaseException | None = None
        self._timer: threading.Timer | None = None
        self._looks = False  # whether the signal that arrives now is that of the timer

    def handler(self, number: int, _: FrameType | None) -> None:
        """Raises at a new request, and again where what was raised is nowhere any more: some library's code has kept it
        from ending the process (JAX has `except:` clauses that take everything)."""
        looks, self._looks = self._looks, False
        if not looks and not self.request.note(number):
            return
        self._timer = threading.Timer(SECONDS_TO_GO_ON, self._look, (number,))
        self._timer.daemon = True
        self._timer.start()
        if not looks or not _is_handled(self._error):
            self._error = ended_by(number)
            raise self._error

    def stop_looking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, number: int) -> None:
        self._looks = True
        self._deliver(number)


def _is_handled(error: BaseException | None) -> bool:
    """Whether an exception is on its way out, or the reason for another that is: `finally` blocks are running."""
    found = sys.exception()
    while found is not None and found is not error:
        found = found.__context__
    return found is not None


@contextmanager
def raised(answer: Answer) -> Iterator[None]:
    """A signal ends what runs inside with the exception of `ended_by`; see `answered`. In the main thread."""
    before = sys.unraisablehook

    def hook(lost: "sys.UnraisableHookArgs") -> None:
        """What is raised in a callback of the garbage collector (JAX has one) or in a finalizer ends nothing: it is
        raised again soon."""
        if lost.exc_value is None or signal_of(lost.exc_value) is None:
            before(lost)

    with answered(answer) as deliver:
        block = _Raised(deliver)
        with handling(block.handler):
            sys.unraisablehook = hook
            _raising.append(block)
            try:
                yield
            finally:
                sys.unraisablehook = before
                _raising.remove(block)
                block.stop_looking()


@contextmanager
def stop_requests(answer: Answer = lambda number: None) -> Iterator[StopRequest]:
    """Signals are noted instead of raised: a step that gave its buffers away must not be cut in two.

    A second request is raised at once, and ends the process where that does not within seconds: because the main thread
    is in a long computation, which Python's handlers wait for, or because a checkpoint is being written. See `answered`
    for `answer`. What a surrounding `raised` has raised, and some library's code has kept from ending it, is noted from
    the start. Call it in the main thread.
    """
    request = StopRequest()
    for outer in _raising:
        outer.stop_looking()
        request.signal = request.signal or outer.request.signal

    def handler(number: int, _: FrameType | None) -> None:
        again = request.signal is not None
        if request.note(number) and again:
            raise ended_by(number)

    with answered(answer), handling(handler):
        yield request


@contextmanager
def answered(answer: Answer) -> Iterator[Callable[[int], None]]:
    """`answer` gets the first signal at once, whatever the main thread is doing, which alone runs Python's handlers; a
    second request ends the process within seconds. Yields what delivers a signal to the main thread once more, which is
    no second request."""
    # Each signal is a byte here as soon as it arrives.
    arrived, written = socket.socketpair()
    written.setblocking(False)
    again: queue.SimpleQueue[int] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(arrived, answer, again), daemon=True).start()
    before = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    main = threading.get_ident()

    def deliver(number: int) -> None:
        again.put(number)
        signal.pthread_kill(main, number)

    try:
        yield deliver
    finally:
        signal.set_wakeup_fd(before)
        written.close()


def _listen(arrived: socket.socket, answer: Answer, again: "queue.SimpleQueue[int]") -> None:
    request = StopRequest()
    with arrived:
        while received := arrived.recv(1):  # empty when the other end is closed
            if not again.empty():
                again.get()
                continue
            is_second = request.signal is not None
            if received[0] not in STOP_SIGNALS or not request.note(received[0]):
                continue
            if not is_second:
                threading.Thread(target=answer, args=(received[0],), daemon=True).start()
            else:
                threading.Event().wait(SECONDS_TO_UNWIND)
                for say in reversed(_last_words):
                    say(received[0])
                os._exit(128 + received[0])


@contextmanager
def last_words(say: Callable[[int], None]) -> Iterator[None]:
    """Inside, a process that a second request is about to end, since it does not unwind, calls `say` with the signal,
    in another thread."""
    _last_words.append(say)
    try:
        yield
    finally:
        _last_words.remove(say)


@contextmanager
def unheard_by_children() -> Iterator[None]:
    """Processes that are started inside, and what they start, hear none of the signals: those go to the whole group,
    and helpers are to end when the one whom they help does."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    resource_tracker.ensure_running()  # a helper of multiprocessing; when it starts, it lets some of the signals in
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals() -> None:
    """For a helper's first step, however it was started."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
