"""The result folder of an action and its status.json (JSON lines, TAO's field names)."""

import json
import time
from pathlib import Path
from typing import Any, Literal

from oneformer_jax.errors import OneFormerError

State = Literal["STARTED", "RUNNING", "SUCCESS", "FAILURE"]


def result_folder(results_dir: str, action_results_dir: str, action: str) -> Path:
    """`<action>.results_dir` if set, else `<results_dir>/<action>`; created.

    Raises OneFormerError if neither is set or the folder cannot be made.
    """
    if not action_results_dir and not results_dir:
        raise OneFormerError("results_dir is not set", hint="set results_dir=FOLDER in the spec or on the command line")
    folder = Path(action_results_dir) if action_results_dir else Path(results_dir) / action
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OneFormerError(f"result folder cannot be made: {error.strerror}", where=str(folder)) from error
    return folder


class StatusFile:
    """Appends one JSON object per event; the last line tells how the action ended."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "status.json"

    def write(self, state: State, message: str, **fields: Any) -> None:
        """One line: epoch fields or `kpi` first, then date, time, status, verbosity and message."""
        now = time.localtime()
        line = fields | {
            "date": f"{now.tm_mon}/{now.tm_mday}/{now.tm_year}",
            "time": f"{now.tm_hour}:{now.tm_min}:{now.tm_sec}",
            "status": state,
            "verbosity": "ERROR" if state == "FAILURE" else "INFO",
            "message": message,
        }
        with self._path.open("a") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
