"""Signals: a request is noted or raised, several signals of one request are one, the second request ends the process,
also where Python does not get to run a handler; helpers hear nothing."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from clusters import ended

from oneformer_jax import stopping
from oneformer_jax.stopping import StopRequest, ended_by, raised, signal_of, stop_requests

ROOT = Path(__file__).resolve().parents[1]
WAITING = """
import ctypes, os, signal, sys, time
from oneformer_jax import stopping
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup, around the tests, would have switched off
stopping.SECONDS_TO_UNWIND = stopping.ONE_REQUEST = 0.5

def say(word):
    os.write(1, word + b"\\n")  # two threads do

answer, last = (lambda number: say(b"answered")), (lambda number: say(b"last word"))
with stopping.stop_requests(answer) as stop, stopping.last_words(last):
    say(b"ready")
    {before}
    while stop.signal is None:
        time.sleep(0.01)
    say(b"noted")
    {wait}
"""
IN_PYTHON = "time.sleep(60)"
# In a call that signals do not reach: they go to another thread, and no handler runs before it returns.
IN_A_CALL = "signal.pthread_sigmask(signal.SIG_BLOCK, stopping.STOP_SIGNALS); ctypes.CDLL(None).sleep({})"


@pytest.fixture(autouse=True)
def hangups() -> Iterator[None]:
    """SIGHUP is not switched off, as by nohup around the tests."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def start(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.slow
@pytest.mark.tao(15)
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str
)
@pytest.mark.parametrize("wait", [IN_PYTHON, IN_A_CALL.format(60)])
def test_the_second_request_ends_the_process(number: signal.Signals, code: int, wait: str) -> None:
    process = start(WAITING.format(before="", wait=wait))
    assert process.stdout is not None
    with ended([process]):
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        process.send_signal(number)  # of the same request
        assert {process.stdout.readline(), process.stdout.readline()} == {"answered\n", "noted\n"}
        time.sleep(0.6)
        assert process.poll() is None
        before = time.monotonic()
        process.send_signal(number)
        rest, _ = process.communicate(timeout=30)
    assert rest == ("" if wait == IN_PYTHON else "last word\n")
    # Of an interruption that is not caught Python dies by the signal itself, which shells call 130.
    assert process.returncode in (code, -number)
    assert time.monotonic() - before < 10


@pytest.mark.slow
def test_the_first_signal_is_answered_while_the_main_thread_is_in_a_long_call() -> None:
    process = start(WAITING.format(before=IN_A_CALL.format(20), wait="pass"))
    assert process.stdout is not None
    with ended([process]):
        assert process.stdout.readline() == "ready\n"
        before = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "answered\n"
        assert time.monotonic() - before < 5


def test_what_comes_within_a_second_belongs_to_the_same_request(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 10.2, 10.9, 11.5])
    monkeypatch.setattr(stopping.time, "monotonic", lambda: next(times))
    request = StopRequest()
    assert [request.note(number) for number in (15, 15, 1, 2)] == [True, False, False, True]
    assert request.signal == signal.SIGINT


@pytest.mark.parametrize("number", stopping.STOP_SIGNALS)
def test_a_signal_ends_what_runs_with_its_exit_code(number: signal.Signals) -> None:
    before = signal.getsignal(number), signal.set_wakeup_fd(-1)

    def work() -> None:
        with raised(lambda number: None):
            os.kill(os.getpid(), number)
            time.sleep(1)

    with pytest.raises((KeyboardInterrupt, SystemExit)) as caught:
        work()
    assert signal_of(caught.value) == number
    assert (signal.getsignal(number), signal.set_wakeup_fd(-1)) == before
    assert signal_of(SystemExit(1)) is signal_of(SystemExit("words")) is signal_of(ValueError()) is None
    assert str(ended_by(number)) == ("" if number == signal.SIGINT else str(128 + number))


def test_what_some_code_has_kept_from_ending_the_process_is_noted_when_requests_are() -> None:
    """As the code of a library may, whose `except` takes everything."""
    with raised(lambda number: None):
        with stop_requests() as before:
            assert before.signal is None
        with suppress(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        with stop_requests() as stop:
            assert stop.signal == signal.SIGTERM
    with stop_requests() as after:
        assert after.signal is None


def test_what_some_code_has_kept_from_ending_the_process_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """But not while the block unwinds, however long that takes."""
    monkeypatch.setattr(stopping, "SECONDS_TO_GO_ON", 0.1)
    unwound = []

    def work() -> None:
        with raised(lambda number: None):
            try:
                with suppress(SystemExit):
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(5)
                unwound.append("went on")
                time.sleep(5)
            finally:
                time.sleep(0.5)
                unwound.append("unwound")

    with pytest.raises(SystemExit) as caught:
        work()
    assert caught.value.code == 128 + signal.SIGTERM
    assert unwound == ["went on", "unwound"]
    time.sleep(0.3)  # nothing is raised after the block


def test_a_hangup_that_nohup_has_switched_off_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
            assert stop.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_processes_that_help_hear_no_signal() -> None:
    with stopping.unheard_by_children():
        child = subprocess.Popen(["sleep", "60"])
    with ended([child]):
        for number in stopping.STOP_SIGNALS:
            child.send_signal(number)
        time.sleep(0.1)
        assert child.poll() is None
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(stopping.STOP_SIGNALS)


SWALLOWING = """
import gc, os, signal, time
from oneformer_jax import stopping

def callback(*_):
    gc.callbacks.remove(callback)
    os.kill(os.getpid(), {number})
    for _ in range(100):
        pass  # the handler runs here, and what it raises is ignored

with stopping.raised(lambda number: print("answered", flush=True)):
    gc.callbacks.append(callback)
    gc.collect()
    print("went on", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_though_a_callback_of_the_collector_ignores_it(number: signal.Signals) -> None:
    process = start(SWALLOWING.format(number=int(number)))
    with ended([process]):
        out, err = process.communicate(timeout=60)
    assert "went on" in out, err
    expected = {signal.SIGTERM: 128 + signal.SIGTERM, signal.SIGINT: -signal.SIGINT}[number]
    assert process.returncode == expected, err
    assert "ignored" not in err


LEAVING = """
import sys, threading
from oneformer_jax import __main__ as command_line
command_line.SECONDS_TO_END = 0.1
threading.Thread(target=threading.Event().wait).start()  # as libraries leave one where something failed
print("said")
command_line._leave(3)
"""


def test_a_command_that_failed_ends_though_a_library_waits_in_a_thread() -> None:
    process = start(LEAVING)
    with ended([process]):
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (3, "said\n"), err
