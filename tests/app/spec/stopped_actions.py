"""The actions up to where the long work would begin: what each of their parts was called with."""

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, Mock, patch

import optax
from key_rows import Observed, Stopped, drawn, stop
from rich.console import Console

import oneformer_jax.app.actions.train.start as starting_point
import oneformer_jax.app.actions.train.train as train
import oneformer_jax.app.actions.train.wandb as experiment_tracking
import oneformer_jax.app.run.execute as execute
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.settings.model import model_config
from oneformer_jax.app.spec import Spec, dump_yaml
from oneformer_jax.evaluation.evaluator import Scoring
from oneformer_jax.training.sharding import make_mesh
from oneformer_jax.training.step import TrainStep

QUIET = Console(quiet=True)


def run_until_stopped(action: Any, module: Any, spec: Spec, parts: dict[str, Any]) -> SimpleNamespace:
    """Runs `action` with `parts` of its module replaced, until one of them stops it."""
    with TemporaryDirectory() as folder, patch.multiple(module, **parts):
        try:
            action(spec, Path(folder), StatusFile(Path(folder), "action", QUIET), QUIET)
        except Stopped:
            return SimpleNamespace(**parts)
    raise AssertionError("the action came to its end")


def training(spec: Spec) -> SimpleNamespace:
    """The parts of `train` until its loop, or its dry run, begins."""
    start = SimpleNamespace(config=model_config(spec), step=0, state=Mock())
    names = ("parameter_groups", "groups_table", "train_batches", "_validation", "enable_compilation_cache")
    parts = {name: Mock() for name in names}
    parts["make_optimizer"] = Mock(return_value=optax.identity())
    parts["TrainStep"] = Mock(return_value=Mock(spec=TrainStep))
    parts |= {"wandb_writers": stop(), "dry_run": stop(), "starting_point": Mock(return_value=start)}
    parts["oneformer"] = Mock(shapes=Mock(return_value={}))
    parts["closing"] = MagicMock()
    parts["_datasets"] = lambda spec, _: (drawn(spec), drawn(spec))
    with (
        patch.object(train, "Checkpoints") as checkpoints,
        patch.object(train.configure, "frozen", return_value=frozenset()),
    ):
        return SimpleNamespace(**vars(run_until_stopped(train.train, train, spec, parts)), checkpoints=checkpoints)


def validation_batch(spec: Spec) -> int:
    """How many images `train` validates at once."""
    with patch.object(Scoring, "evaluator", autospec=True, side_effect=Stopped) as evaluator, suppress(Stopped):
        train._validation(spec, model_config(spec), drawn(spec), make_mesh(1), Mock(spec=StatusFile), QUIET)
    return evaluator.call_args.args[0].batch_size


def step_input(field: str) -> Observed:
    """A field of what every training step shares."""
    return lambda spec: getattr(training(spec).TrainStep.call_args.args[4], field)


def step_option(name: str) -> Observed:
    """What the training step is built with."""
    return lambda spec: getattr(training(spec).TrainStep.call_args.args[5], name)


def resumed_from(spec: Spec) -> Path | None:
    """The checkpoint that a training in an empty folder goes on from."""
    with (
        patch.multiple(starting_point, _resume=stop(), _fresh_params=Mock(return_value={})),
        patch.object(starting_point.ckpt, "find_checkpoint", side_effect=lambda path: path),
    ):
        try:
            starting_point.starting_point(spec, None, optax.identity(), QUIET, make_mesh(1))
        except Stopped:
            return starting_point._resume.call_args.args[1]
    return None


def weights_read(spec: Spec) -> list[str]:
    """The weights that a training in an empty folder reads before anything else."""
    with patch.multiple(starting_point, read_weights=stop(), _fresh_params=Mock(return_value={})):
        with suppress(Stopped):
            starting_point.starting_point(spec, None, optax.identity(), QUIET, make_mesh(1))
        return [call.args[0] for call in starting_point.read_weights.call_args_list]


def first_temperature(spec: Spec) -> float:
    """Of the query-text loss, in fresh parameters."""
    with patch.object(starting_point.oneformer, "init", return_value={}):
        scale = starting_point._fresh_params(spec, model_config(spec))["logit_scale"]
    return round(float(1 / starting_point.jnp.exp(scale)), 6)


def result_folder(action: str) -> Observed:
    """The folder, below the one of the spec file, that an action is given."""

    def below(spec: Spec) -> str:
        with TemporaryDirectory() as folder:
            file = Path(folder, "spec.yaml")
            file.write_text(dump_yaml(spec).replace("HERE", folder))
            with execute.running(action, file, [], QUIET) as (_, run):
                return str(run.folder.relative_to(folder))

    return below


def starts_wandb(spec: Spec) -> bool:
    """Whether a run of Weights & Biases is asked for."""
    with patch.object(experiment_tracking, "_start", return_value=None) as start:
        with experiment_tracking.wandb_writers(spec, Path(), Mock(spec=StatusFile), QUIET):
            pass
        return start.called


def wandb(argument: str) -> Observed:
    """An argument of `wandb.init`."""
    return lambda spec: experiment_tracking.init_arguments(spec)[argument]
