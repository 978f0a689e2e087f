"""Parts of the installation that a machine may lack: the extras of pyproject.toml."""

from collections.abc import Iterator
from contextlib import contextmanager

from oneformer_jax.errors import OneFormerError

OWN = ("oneformer_jax", "converters")


def install_hint(extra: str) -> str:
    """How to install an extra."""
    return f"pip install 'oneformer_jax[{extra}]', or in a checkout: pip install -e '.[{extra}]'"


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
