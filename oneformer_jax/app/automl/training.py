"""The training of a trial: an ordinary `train` in a process and a folder of its own.

A process of its own survives neither more nor less than it should: memory that runs out, a crash or a kill end this
trial alone, and its folder holds the checkpoint from which it goes on.
"""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from oneformer_jax.app.automl.devices import Place
from oneformer_jax.app.automl.request import SPEC
from oneformer_jax.app.package import environment

Command = Callable[[Path], list[str]]
"""The command line that trains the spec in a file. It must end when its standard input does."""

TRIALS, OUTPUT = "trials", "output.txt"


def trial_folder(folder: Path, number: int) -> Path:
    """Where trial `number` of the study in `folder` lies."""
    return folder / TRIALS / f"{number:04d}"


class Training:
    """The process of a trial, from its start on."""

    def __init__(self, folder: Path, command: Command, place: Place) -> None:
        with (folder / OUTPUT).open("ab") as output:
            self._process = subprocess.Popen(
                command(folder / SPEC),
                stdin=subprocess.PIPE,  # never written to: it closes when this process ends, however it ends
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment(), **place.environment},
                start_new_session=True,  # Ctrl-C is for the study, which then stops its trials
            )
        if place.cores:
            os.sched_setaffinity(self._process.pid, place.cores)

    @property
    def ended(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Asks it to save its step and end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Until it has ended."""
        code = self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        return code
