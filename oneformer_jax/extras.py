"""Parts of the installation that a machine may lack: the extras of pyproject.toml, and the command that adds one."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from oneformer_jax.errors import OneFormerError

OWN = ("oneformer_jax", "converters")
ROOT = Path(__file__).resolve().parents[1]

_TRAIN = ("jax", "jaxlib", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "array_record", "scipy")
EXTRAS_OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*_TRAIN, "tensorboardX", "matplotlib", "ftfy"), ("train",)),
    **dict.fromkeys(("cv2", "pycocotools"), ("train", "deploy")),
    **dict.fromkeys(("onnx", "ml_dtypes"), ("export", "tensorrt")),
}
"""The extras that bring a module which many files import, the usual one first. The others are asked for by `needs`."""


def install_hint(extra: str) -> str:
    """The command that adds an extra to this installation: from a checkout, from the file it came from, or by name."""
    if (ROOT / "pyproject.toml").is_file():
        return f"pip install -e '{ROOT}[{extra}]'"
    try:
        origin = json.loads(distribution("oneformer_jax").read_text("direct_url.json") or "{}").get("url", "")
    except PackageNotFoundError:
        origin = ""
    return f"pip install 'oneformer_jax[{extra}]{f' @ {origin}' if origin else ''}'"


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
