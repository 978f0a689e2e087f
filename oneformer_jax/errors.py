"""The one family of errors that a person can meet.

Every message says what is wrong and, where known, in which file or key and what to do about it. The command line
prints the message (no traceback), writes FAILURE to status.json and exits with 1. Everything else is a defect.

A part that a machine may lack, one of the extras of pyproject.toml, is an error with the command that adds it.
"""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of an OSError when a disk, a quota or a limit takes no more."""

OWN = ("oneformer_jax", "converters")
ROOT = Path(__file__).resolve().parents[1]

_TRAIN = ("jax", "jaxlib", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "array_record", "scipy")
EXTRAS_OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*_TRAIN, "tensorboardX", "matplotlib", "ftfy"), ("train",)),
    **dict.fromkeys(("cv2", "pycocotools"), ("train", "deploy")),
    **dict.fromkeys(("onnx", "ml_dtypes"), ("export", "tensorrt")),
}
"""The extras that bring a module which many files import, the usual one first. The others are asked for by `needs`."""


LONGEST_PLACE = 1000
"""Letters of a place that a message shows: a path is as long as a file system allows, a name in a file is not."""


class OneFormerError(Exception):
    """What is wrong, `where` (file, line, key) and a `hint` that says what to do."""

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(str(self))

    def __str__(self) -> str:
        where = self.where if len(self.where) <= LONGEST_PLACE else f"{self.where[:LONGEST_PLACE]}..."
        place = f"{where}: ".replace("\n", "\u240a") if where else ""
        advice = f"\n  -> {self.hint}" if self.hint else ""
        return f"{place}{self.what}{advice}"


class SpecError(OneFormerError):
    """The spec file or an override on the command line cannot be used."""


class DataError(OneFormerError):
    """A file of the data set is missing, unreadable or contradicts another."""


class CheckpointError(OneFormerError):
    """A checkpoint is missing, damaged or does not fit."""


class EngineError(OneFormerError):
    """An exported model or an engine is missing, foreign, or does not fit what it is asked for."""


def install_hint(extra: str) -> str:
    """The command that adds an extra to this installation, from the checkout or from the file that it came from.

    Never by name alone: no index has this project under its name, and somebody else could take it.
    """
    if (ROOT / "pyproject.toml").is_file():
        return f"pip install -e '{ROOT}[{extra}]'"
    try:
        origin = json.loads(distribution("oneformer_jax").read_text("direct_url.json") or "{}").get("url", "")
    except PackageNotFoundError:
        origin = ""
    if origin:
        return f"pip install 'oneformer_jax[{extra}] @ {origin}'"
    return f"pip install -e '.[{extra}]', in a checkout"


@contextmanager
def needs(extra: str, *, where: str = "") -> Iterator[None]:
    """What is imported inside comes with an extra: a module that is missing is a OneFormerError that names it."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = error.name or str(error)
        if name.partition(".")[0] in OWN:
            raise
        raise OneFormerError(f"{name} is not installed", where=where, hint=install_hint(extra)) from error


def missing_extra(error: ImportError, wanted: str = "") -> OneFormerError | None:
    """The error for whoever meets it; None where the module that is not found belongs to no extra.

    `wanted`: the extra that holds all that was to be used, where one does.
    """
    extras = EXTRAS_OF.get(error.name or "")
    if not extras or not isinstance(error, ModuleNotFoundError):
        return None
    others = "" if wanted else "".join(f"; the extra {other} has it too" for other in extras[1:])
    return OneFormerError(f"{error.name} is not installed", hint=install_hint(wanted or extras[0]) + others)
