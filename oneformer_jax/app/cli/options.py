"""Arguments that several commands take."""

import os
from pathlib import Path
from typing import Annotated

import typer

from oneformer_jax.data.storage.addresses import is_address, shown


def path(text: str | Path) -> Path:
    """A path of the command line, with the home folder in place of a `~`, which shells leave in --option=~/file."""
    if is_address(str(text)):
        raise typer.BadParameter(f"{shown(str(text))} is an address; expected a path on this machine")
    return Path(os.path.expanduser(text))


SpecPath = Annotated[
    Path, typer.Option("--spec", "-e", "--experiment_spec_file", parser=path, help="The spec file (YAML).")
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of spec keys.")]
