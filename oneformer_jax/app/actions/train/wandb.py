"""Curves to Weights & Biases, where a training asks for it and the package and an account are there.

Nothing is imported, contacted or asked for unless the spec itself sets `wandb.enable` to true and an account is known
(or WANDB_MODE says offline): TAO's published default is true, which nobody who leaves the key out has asked for.
"""

import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rich.console import Console

from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.errors import install_hint
from oneformer_jax.training.logbook import ScalarWriter
from oneformer_jax.training.run import Tracking, TrainingRun

if TYPE_CHECKING:
    import wandb

OFFLINE = ("offline", "dryrun")


@contextmanager
def wandb_writers(settings: TrainingRun, status: StatusFile, console: Console) -> Iterator[tuple[ScalarWriter, ...]]:
    """What takes the curves while the run lasts: nothing where there is none. A run that cannot start is a warning.

    With `wandb.sync_tensorboard` W&B reads the curves from TensorBoard's files, so open those inside.
    """
    tracking = settings.tracking
    run = _start(tracking, settings, status) if tracking else None
    if tracking is None or run is None:
        yield ()
        return
    where = f"offline; send it with `wandb sync {Path(run.dir).parent}`" if run.offline else run.url
    console.print(f"wandb: {where}")
    failed = True
    try:
        yield () if tracking.sync_tensorboard else (_RunWriter(run),)
        failed = False
    finally:
        run.finish(exit_code=int(failed))


class _RunWriter:
    def __init__(self, run: "wandb.Run") -> None:
        self._run = run

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self._run.log({tag: scalar_value}, step=global_step)


def _start(tracking: Tracking, settings: TrainingRun, status: StatusFile) -> "wandb.Run | None":
    mode = os.environ.get("WANDB_MODE", "online")
    if mode == "disabled":
        return None
    server, is_valid = _server()
    if mode not in OFFLINE and not is_valid:
        obstacle = "WANDB_BASE_URL is not a valid address"
    elif mode not in OFFLINE and not _has_account(server):
        obstacle = "no account is configured: run `wandb login` or set WANDB_API_KEY (or WANDB_MODE=offline)"
    elif importlib.util.find_spec("wandb") is None:
        obstacle = f"the package is not installed: {install_hint('wandb')}"
    else:
        import wandb

        try:
            return wandb.init(dir=settings.folder, **init_arguments(tracking, settings.spec))
        except (wandb.Error, ValueError) as error:
            obstacle = str(error)
    status.warning(f"nothing is sent to Weights & Biases: {obstacle}; wandb.enable: false disables this message")
    return None


def init_arguments(tracking: Tracking, spec: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `wandb.init`, with the spec, which holds no secrets, as the run's configuration."""
    return {
        "project": tracking.project or None,
        "entity": tracking.entity or None,
        "group": tracking.group or None,
        "name": tracking.name or None,
        "tags": list(tracking.tags),
        "id": tracking.run_id or None,
        "resume": "allow" if tracking.run_id else None,
        "reinit": "finish_previous" if tracking.reinit else "default",
        "sync_tensorboard": tracking.sync_tensorboard,
        "save_code": tracking.save_code,
        "config": {name: value for name, value in spec.items() if name != "encryption_key"},
        # The screen belongs to the progress bar. Metadata would hold the command line, and that may hold keys.
        "settings": {"silent": True, "console": "off", "x_disable_meta": True},
    }


def _server() -> tuple[str | None, bool]:
    """The host that WANDB_BASE_URL names, None where it names none, and whether it could be read."""
    try:
        return urlsplit(os.environ.get("WANDB_BASE_URL", "")).hostname, True
    except ValueError:
        return None, False


def _has_account(server: str | None) -> bool:
    """A key in the environment, or an entry in the file where `wandb login` writes it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    file = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        machines = re.findall(r"machine\s+(\S+)", file.read_text())
    except OSError:
        return False
    return any(server == machine if server else re.search("wandb|coreweave", machine) for machine in machines)
