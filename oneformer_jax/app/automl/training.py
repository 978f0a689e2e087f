"""The training of a trial: an ordinary `train` in a process and a folder of its own.

A process of its own survives neither more nor less than it should: memory that runs out, a crash or a kill end this
trial alone, and its folder holds the checkpoint from which it goes on.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from oneformer_jax.app.automl.algorithms import STOPPING
from oneformer_jax.app.automl.devices import Place
from oneformer_jax.app.spec import Spec, given_values, load_spec, to_yaml
from oneformer_jax.app.spec.automl_keys import LOSS

Command = Callable[[Path], list[str]]
"""The command line that trains the spec in a file. It must end when its standard input does."""

TRIALS = "trials"
SPEC, OUTPUT = "spec.yaml", "output.txt"


def trial_folder(folder: Path, number: int) -> Path:
    """Where trial `number` of the study in `folder` lies."""
    return folder / TRIALS / f"{number:04d}"


def with_values(spec: Spec, values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that the spec sets, with the values of a trial, as a spec that is trained directly."""
    data = given_values(spec) | {"automl_policy": "off"}
    data.pop("automl", None)
    for path, value in values.items():
        _assign(data, path, value)
    return data


def write_trial_spec(spec: Spec, values: Mapping[str, Any], folder: Path) -> None:
    """Writes the spec of a trial that trains in `folder`. Raises SpecError where the values contradict each other."""
    data = with_values(spec, values)
    _assign(data, "train.results_dir", str(folder.absolute()))
    if spec.automl.metric != LOSS:
        _assign(data, "train.monitor", spec.automl.metric)
    if spec.automl.algorithm in STOPPING:  # a score at every rung
        _assign(data, "train.validation_interval", spec.automl.min_epochs)
        data["train"].pop("val_check_interval", None)
    if spec.is_changed("train.gpu_ids"):  # the trial sees no others
        _assign(data, "train.num_gpus", len(spec.train.gpu_ids))
        del data["train"]["gpu_ids"]
    if spec.wandb.enable and "wandb" in data:
        data["wandb"].pop("run_id", None)
        _assign(data, "wandb.name", f"{spec.wandb.name} {folder.name}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SPEC).write_text(to_yaml(data))
    load_spec(folder / SPEC)


class Training:
    """The process of a trial, from its start on."""

    def __init__(self, folder: Path, command: Command, place: Place) -> None:
        with (folder / OUTPUT).open("ab") as output:
            self._process = subprocess.Popen(
                command(folder / SPEC),
                stdin=subprocess.PIPE,  # never written to: it closes when this process ends, however it ends
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | place.environment,
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


def _assign(data: dict[str, Any], path: str, value: Any) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        data = data.setdefault(parent, {})
    data[name] = value
