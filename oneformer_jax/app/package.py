"""The installed package as an action finds it: its spec files, and its command line for processes of their own.

Nothing here depends on the current folder, which is the user's, nor on how this process was started.
"""

import os
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]

CONFIGS = next(folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir())
"""Specs, and in `skill/` what TAO's tools read: inside an installed package, at the top of a checkout."""

# -P: no file of the current folder takes the place of a module.
COMMAND_LINE = (sys.executable, "-P", "-m", "oneformer_jax")
TRIAL = (sys.executable, "-P", "-m", "oneformer_jax.app.cli.trial")


def environment() -> dict[str, str]:
    """The variables of this process, for a child that is to run the same code: a checkout may not be installed."""
    root = _PACKAGE.parent
    variables = dict(os.environ)
    if root.name not in ("site-packages", "dist-packages"):
        others = variables.get("PYTHONPATH", "").split(os.pathsep)
        variables["PYTHONPATH"] = os.pathsep.join([str(root), *(it for it in others if it not in ("", str(root)))])
    return variables
