"""Signals: the first is noted, the second ends the process, also where Python does not get to run a handler."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clusters import ended

ROOT = Path(__file__).resolve().parents[2]
WAITING = """
import ctypes, signal, sys, time
from oneformer_jax.training import distributed
distributed.SECONDS_TO_UNWIND = 0.5
with distributed.stop_requests() as stop:
    print("ready", flush=True)
    while stop.signal is None:
        time.sleep(0.01)
    print("noted", flush=True)
    {wait}
"""
IN_PYTHON = "time.sleep(60)"
# In a call that signals do not reach: they go to another thread, and no handler runs before it returns.
IN_A_CALL = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM]); ctypes.CDLL(None).sleep(60)"


@pytest.mark.slow
@pytest.mark.tao(15)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("wait", [IN_PYTHON, IN_A_CALL])
def test_the_second_signal_ends_the_process(number: signal.Signals, code: int, wait: str) -> None:
    script = WAITING.format(wait=wait)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    with ended([process]):
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "noted\n"
        time.sleep(0.1)
        start = time.monotonic()
        process.send_signal(number)
        process.communicate(timeout=30)
    # Of an interruption that is not caught Python dies by the signal itself, which shells call 130.
    assert process.returncode in (code, -number)
    assert time.monotonic() - start < 10
