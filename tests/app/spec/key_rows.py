"""How a test shows that a key of the spec counts: kinds of rows, and what the parts of a run are built from."""

from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock, patch

from oneformer_jax.app.run import devices
from oneformer_jax.app.settings import data as datasets
from oneformer_jax.app.settings import evaluation as scoring
from oneformer_jax.app.settings import training as configure
from oneformer_jax.app.settings.devices import device_choice
from oneformer_jax.app.settings.evaluation import evaluation_policy
from oneformer_jax.app.settings.model import model_config
from oneformer_jax.app.spec import Spec
from oneformer_jax.data.datasets.dataset import Dataset
from oneformer_jax.data.datasets.files import DatasetFiles, Split, open_dataset

Observed = Callable[[Spec], Any]


class Changes(NamedTuple):
    """With `value` (as on a command line) a run is built from `expected`, with the default from something else.

    `beside`: overrides without which the key does not count; `together`: those that have to change along with it.
    DATA in an override is the folder of a drawn data set.
    """

    value: str
    observed: Observed
    expected: Any
    beside: tuple[str, ...] = ()
    together: tuple[str, ...] = ()


class Refused(NamedTuple):
    """Any value but the default is refused; this is one."""

    value: str


class Shown(NamedTuple):
    """What the key changes is seen in another test: its node id below `tests/`."""

    node: str


Row = Changes | Refused | Shown
Rows = dict[str, Row]


class Stopped(Exception):
    """Ends an action where enough has been seen."""


def stop() -> Mock:
    """A function that notes its arguments and ends the action."""
    return Mock(side_effect=Stopped)


def model(*fields: str) -> Observed:
    """Fields of the architecture."""
    return lambda spec: attrgetter(*fields)(model_config(spec))


def criterion(field: str) -> Observed:
    """A field of the loss settings."""
    return lambda spec: getattr(configure.criterion_config(spec), field)


def optimizer(field: str) -> Observed:
    """A field of the optimizer settings."""
    return lambda spec: getattr(configure.optimizer_config(spec), field)


def thresholds(field: str) -> Observed:
    """A field of the post-processing thresholds."""
    return lambda spec: getattr(scoring.thresholds(spec), field)


def drawn(spec: Spec) -> Dataset:
    """The training data: 4 pictures."""
    return open_dataset(datasets.dataset_files(spec, "train"))


def loop(field: str) -> Observed:
    """A field of the training loop's settings on one device."""
    return lambda spec: getattr(configure.loop_settings(spec, drawn(spec), 1), field)


def rate(step: int) -> Observed:
    """The learning rate after so many updates."""

    def at_step(spec: Spec) -> float:
        schedule = configure.schedule(spec, configure.loop_settings(spec, drawn(spec), 1))
        return round(float(schedule(step)), 6)

    return at_step


def pipeline(field: str) -> Observed:
    """A field of the training pipeline's settings."""
    return lambda spec: attrgetter(field)(configure.pipeline_settings(spec, drawn(spec), 1))


def policy(field: str) -> Observed:
    """A field of the geometry of evaluated images."""
    return lambda spec: getattr(evaluation_policy(spec), field)


def source(split: Split, field: str) -> Observed:
    """A field of the first annotation file of a split; of a path the folders `<split>/<name>`."""

    def value(spec: Spec) -> str:
        found = getattr(datasets.dataset_files(spec, split).sources[0], field)
        return found if field == "name" else "/".join(Path(found).parts[-2:])

    return value


def evaluation_workers(split: Split) -> Observed:
    """The host threads of an evaluator."""
    return lambda spec: scoring.scoring(spec, DatasetFiles(split), ("semantic",)).workers


def chosen_devices(action: str) -> Observed:
    """What the mesh is made of where there are eight devices: a count, or indices."""

    def count_or_indices(spec: Spec) -> Any:
        eight = Mock(return_value=[Mock(platform="cpu")] * 8)
        with patch.multiple(devices, available_devices=eight, make_mesh=stop()):
            try:
                devices.mesh_of(device_choice(spec, action), Mock(spec=devices.StatusFile))
            except Stopped:
                return devices.make_mesh.call_args.args[0]

    return count_or_indices
