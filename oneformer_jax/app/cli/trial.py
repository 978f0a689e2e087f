"""`python -m oneformer_jax.app.cli.trial SPEC`: the training of a trial, which ends when the study does.

The study holds the other end of the standard input. When that closes, because the study was killed, the training saves
its step and ends: nobody wants a training that nobody watches, and the study that goes on later resumes it.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import yaml

from oneformer_jax.app.run.execute import running
from oneformer_jax.app.run.failures import guarded
from oneformer_jax.app.run.status import FolderInUseError, only_process_in


def trial(spec_path: Path) -> None:
    """Trains the spec of a trial, after a training that still saves its last step there."""
    threading.Thread(target=_end_with_the_study, daemon=True).start()
    folder = Path(yaml.safe_load(spec_path.read_text())["train"]["results_dir"])
    while not _is_free(folder):
        time.sleep(0.5)
    with guarded() as console, running("train", spec_path, [], console) as (read, run):
        from oneformer_jax.app.actions.train.train import train
        from oneformer_jax.app.settings.training import training_run

        train(training_run(read, run.folder), run)


def _end_with_the_study() -> None:
    os.read(sys.stdin.fileno(), 1)  # not of sys.stdin itself: its lock would be held when the interpreter ends
    os.kill(os.getpid(), signal.SIGTERM)


def _is_free(folder: Path) -> bool:
    try:
        with only_process_in(folder):
            return True
    except FolderInUseError:
        return False


if __name__ == "__main__":
    trial(Path(sys.argv[1]))
