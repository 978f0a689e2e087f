"""How a test shows that a key of the spec counts: kinds of rows, and what the parts of a run are built from."""

from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from oneformer_jax.app.run.execute import running
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.app.settings.data import dataset_files
from oneformer_jax.app.settings.evaluation import scoring
from oneformer_jax.app.settings.training import training_run
from oneformer_jax.app.spec import Spec, dump_yaml
from oneformer_jax.data.datasets.files import Split, open_dataset
from oneformer_jax.training.loop import LoopSettings

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


def training(*fields: str) -> Observed:
    """Fields of the settings of `train`, by their dotted paths."""
    return lambda spec: attrgetter(*fields)(training_run(spec, Path("/results")))


def model(*fields: str) -> Observed:
    """Fields of the architecture."""
    return training(*(f"recipe.model.{field}" for field in fields))


def criterion(field: str) -> Observed:
    """A field of the loss settings."""
    return training(f"recipe.loss.{field}")


def optimizer(field: str) -> Observed:
    """A field of the optimizer settings."""
    return training(f"recipe.optimizer.{field}")


def pipeline(field: str) -> Observed:
    """A field of the training pipeline's settings."""
    return training(f"pipeline.{field}")


def thresholds(field: str) -> Observed:
    """A field of the post-processing thresholds."""
    return training(f"validation.thresholds.{field}")


def policy(field: str) -> Observed:
    """A field of the geometry of evaluated images."""
    return training(f"validation.policy.{field}")


def in_steps(spec: Spec) -> LoopSettings:
    """The length of the training on one device, with the 4 pictures of the drawn data."""
    run = training_run(spec, Path("/results"))
    return run.length.in_steps(open_dataset(run.data), run.pipeline.batch_size)


def loop(field: str) -> Observed:
    """A field of the training loop's settings."""
    return lambda spec: getattr(in_steps(spec), field)


def rate(step: int) -> Observed:
    """The learning rate after so many updates."""

    def at_step(spec: Spec) -> float:
        schedule = training_run(spec, Path("/results")).recipe.learning_rate(in_steps(spec))
        return round(float(schedule(step)), 6)

    return at_step


def source(split: Split, field: str) -> Observed:
    """A field of the first annotation file of a split; of a path the folders `<split>/<name>`."""

    def value(spec: Spec) -> str:
        found = getattr(dataset_files(spec, split).sources[0], field)
        return found if field == "name" else "/".join(Path(found).parts[-2:])

    return value


def evaluation_workers(split: Split) -> Observed:
    """The host threads of an evaluator."""
    return lambda spec: scoring(spec, dataset_files(spec, split), ("semantic",)).workers


def result_folder(action: str) -> Observed:
    """The folder, below the one of the spec file, that an action is given."""

    def below(spec: Spec) -> str:
        with TemporaryDirectory() as folder:
            file = Path(folder, "spec.yaml")
            file.write_text(dump_yaml(spec).replace("HERE", folder))
            with running(action, file, [], Screen(quiet=True)) as (_, run):
                return str(run.folder.relative_to(folder))

    return below
