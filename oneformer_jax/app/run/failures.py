"""What an exception means to the person who ran the action: the message, the words for status.json, the exit code."""

import errno
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console

from oneformer_jax.app.run.children import AGAIN
from oneformer_jax.app.run.screen import downloading, standard_error, standard_output, told
from oneformer_jax.data.storage.cache import ensure_home, show_progress_with
from oneformer_jax.errors import OneFormerError, missing_extra
from oneformer_jax.stopping import name_of, raised, signal_of
from oneformer_jax.writing import advice

CONNECTION_LOST = re.compile(r"gloo|nccl|connection (closed|reset)|coordination service|heartbeat", re.IGNORECASE)
LESS_MEMORY = {
    "train": "lower dataset.train.batch_size or dataset.augmentation.train_crop_size",
    "evaluate": "lower evaluate.batch_size or dataset.augmentation.test_max_size",
    "inference": "lower inference.batch_size or dataset.augmentation.test_max_size",
    "export": "lower export.input_height and export.input_width, or export on a machine with more memory",
}
TAKEN = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY)
"""Numbers of an OSError that concern the second of two names, where there are two: something else stands there."""
SECONDS_OF_SILENCE = 0.5
EXTRAS = {"automl": "automl", "export": "export", "gen_trt_engine": "tensorrt"}
"""What an action needs beyond what its first import that fails belongs to."""


@contextmanager
def guarded() -> Iterator[Console]:
    """Turns what a person can meet into one message and an exit code; a defect keeps its traceback."""
    console = standard_output()
    if sys.stderr.isatty():
        show_progress_with(downloading)
    ensure_home()
    try:
        with told(), raised(_answer):
            yield console
    except (KeyboardInterrupt, SystemExit) as error:
        if (number := signal_of(error)) is None:
            raise
        last_word = "\n  -> ".join([f"interrupted ({name_of(number)})", *getattr(error, "__notes__", ())])
        standard_error().print(last_word, style="red")
        raise typer.Exit(128 + number) from None
    except typer.Exit:
        raise
    except Exception as error:
        known = explained(error)
        if known is None:
            _leave_others(error)
            raise
        standard_error().print(f"error: {known}", style="red")
        _leave_others()
        raise typer.Exit(1) from None


def explained(error: BaseException, action: str = "") -> OneFormerError | None:
    """The message for what a person can meet (a full disk, memory that does not suffice); None for a defect."""
    if isinstance(error, OneFormerError):
        return error
    if isinstance(error, ImportError):
        return missing_extra(error, EXTRAS.get(action, ""))
    if is_out_of_memory(error):
        detail = str(error).strip().splitlines()
        return OneFormerError(
            f"out of memory{': ' + detail[0][:300] if detail else ''}",
            hint=LESS_MEMORY.get(action, "use smaller images or batches"),
        )
    if _is_of_jax(error) and CONNECTION_LOST.search(str(error)):
        return OneFormerError(
            f"the connection to another process of the training was lost: {str(error).splitlines()[0][:200]}",
            hint="its output, or that of whatever started it, has the reason; start all processes again to resume",
        )
    if isinstance(error, OSError):
        return OneFormerError(
            error.strerror or str(error) or type(error).__name__,
            where=str((error.errno in TAKEN and error.filename2) or error.filename or ""),
            hint=advice(error.errno),
        )
    return None


def reason(error: BaseException, action: str) -> str:
    """The message of the FAILURE line."""
    name = action.capitalize()
    if (number := signal_of(error)) is not None:
        return f"{name} was interrupted ({name_of(number)})."
    if isinstance(error, SystemExit):
        return f"{name} ended with exit code {error.code}."
    if (known := explained(error, action)) is not None:
        return str(known)
    return f"{type(error).__name__}: {error}"


def how_to_go_on(action: str, folder: Path) -> str:
    """The last word of an action that was interrupted in its result folder."""
    command = os.environ.get(AGAIN)
    again = f"run `{command}`" if command else "run the same command again"
    if action == "automl":
        return f"{again}: the study goes on"
    latest = folder / "latest"
    if action == "train" and latest.is_dir():
        return f"{again}: it goes on from step {latest.resolve().name}"
    return f"{again}: it starts {'anew' if action != 'train' else 'from the beginning'}"


def is_out_of_memory(error: BaseException) -> bool:
    """Of the host or of a device."""
    if isinstance(error, MemoryError):
        return True
    return _is_of_jax(error) and "RESOURCE_EXHAUSTED" in str(error)


def _is_of_jax(error: BaseException) -> bool:
    # By name: an action that failed before it imported JAX need not wait for it now.
    return type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")


def _answer(number: int) -> None:
    time.sleep(SECONDS_OF_SILENCE)  # most end at once, and need no answer
    standard_error().print(f"{name_of(number)}: ending as soon as what is running allows; once more: at once")


def _leave_others(defect: Exception | None = None) -> None:
    """Ends the process here if it is one of several; `defect`: what nobody has printed yet."""
    if "oneformer_jax.training.distributed" in sys.modules:  # else it is alone
        from oneformer_jax.training.distributed import leave_the_others

        leave_the_others(1, defect)
