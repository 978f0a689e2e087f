"""What a spec asks of a search, read once: what is varied, how, on what, and the spec of each trial. No Optuna here."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from oneformer_jax.app.automl.parameter import Parameter
from oneformer_jax.app.automl.policy import require_optuna, train_schema
from oneformer_jax.app.automl.search_space import LEAVES, flatten, left_out, search_space
from oneformer_jax.app.settings.data import dataset_files
from oneformer_jax.app.settings.evaluation import refuse_unknown_score, validation_tasks
from oneformer_jax.app.settings.model_choice import device_choice
from oneformer_jax.app.spec import Spec, given_values, load_spec
from oneformer_jax.app.spec.automl_keys import LOSS, Automl
from oneformer_jax.app.spec.dotted import flat, put, remove
from oneformer_jax.app.spec.source import yaml_text
from oneformer_jax.app.spec.spec import literal, withheld
from oneformer_jax.data.datasets.files import DatasetFiles, Split
from oneformer_jax.data.storage.addresses import redacted
from oneformer_jax.devices import DeviceChoice
from oneformer_jax.errors import SpecError
from oneformer_jax.tasks import Task
from oneformer_jax.writing import write_text

STOPPING = ("hyperband", "asha")
"""The algorithms that stop trials early."""
SPEC = "spec.yaml"
OTHER_SECTIONS = ("automl", "wandb", "evaluate", "inference", "export", "gen_trt_engine", "quantize")
OTHER_KEYS = ("results_dir", "train.results_dir", "train.num_gpus", "train.gpu_ids", "automl_policy", "train.verbose")
"""Sections and keys that may change while a study goes on: its scores do not depend on them."""
DEFINING = ("algorithm", "surrogate", "metric", "direction", "min_epochs", "reduction_factor")


@dataclass(frozen=True)
class SearchSettings:
    """What a study is given besides its parameters. `max_epochs`: of a trial that is not stopped early."""

    algorithm: Literal["bayesian", "random", "hyperband", "asha"]
    direction: Literal["maximize", "minimize"]
    max_trials: int
    max_epochs: int
    surrogate: Literal["tpe", "gp"] = "tpe"
    min_epochs: int = 1
    reduction_factor: int = 3
    seed: int = 0

    @property
    def sign(self) -> int:
        """1 where larger is better, -1 where smaller is."""
        return 1 if self.direction == "maximize" else -1


@dataclass(frozen=True)
class TrialSpecs:
    """The specs of trials: what people wrote (`given`), the values of a trial, and what every trial has (`always`, by
    dotted key) or lacks (`never`). `name`: that of its run in Weights & Biases, before the number of the trial."""

    given: Mapping[str, Any]
    always: Mapping[str, Any] = field(default_factory=dict)
    never: tuple[str, ...] = ()
    name: str | None = None

    def trained_alone(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The spec with the values of a trial, to be trained as it is."""
        data = copy.deepcopy(dict(self.given))
        for path, value in values.items():
            put(data, path, value)
        return data

    def write(self, values: Mapping[str, Any], folder: Path) -> dict[str, str]:
        """Writes the spec of a trial that trains in `folder`, and returns the environment variables from which it takes
        what is secret. Raises SpecError where its values contradict each other."""
        data = self.trained_alone(values)
        for path in self.never:
            remove(data, path)
        named = {} if self.name is None else {"wandb.name": f"{self.name} {folder.name}"}
        for path, value in {**self.always, **named, "train.results_dir": str(folder.absolute())}.items():
            put(data, path, value)
        public, secrets = withheld(literal(data))
        write_text(folder / SPEC, yaml_text(public))
        load_spec(folder / SPEC)
        return secrets


@dataclass(frozen=True)
class SearchRun:
    """A search. `metric` is "" where the data decides, see `scored_by`. `base` has the spec's values of the searched
    keys and of those that bound them; `identity` is what makes the trials of one study comparable. `devices` are those
    of one trial, of which `at_most` so many run at a time (0: as many as there are devices for). `task_prob` are the
    chances of the tasks in training, `tasks` those that a trial validates. `searched_against_advice` and
    `not_searched`: keys, and why.
    """

    study: SearchSettings
    metric: str
    parameters: tuple[Parameter, ...]
    base: Mapping[str, Any]
    identity: Mapping[str, Any]
    trials: TrialSpecs
    data: tuple[DatasetFiles, ...] = ()
    task_prob: Mapping[str, float] = field(default_factory=dict)
    tasks: tuple[Task, ...] = ()
    devices: DeviceChoice = field(default_factory=DeviceChoice)
    at_most: int = 0
    run_baseline: bool = True
    keep_only_the_best: bool = True
    searched_against_advice: Mapping[str, str] = field(default_factory=dict)
    not_searched: Mapping[str, str] = field(default_factory=dict)

    def scored_by(self, metric: str) -> "SearchRun":
        """The same search by this score."""
        monitored = {} if metric == LOSS else {"train.monitor": metric}
        trials = replace(self.trials, always={**self.trials.always, **monitored})
        return replace(self, metric=metric, identity={**self.identity, "automl.metric": metric}, trials=trials)


def search_run(spec: Spec) -> SearchRun:
    """Raises OneFormerError: Optuna is not installed, there is no score to search for or nothing to search."""
    require_optuna()
    section, metric = spec.automl, _metric(spec)
    schema = train_schema(Path(section.skill_dir) if section.skill_dir else None)
    parameters = search_space(spec, schema)
    searched = [parameter.path for parameter in parameters]
    limits = {parameter.relation.other for parameter in parameters if parameter.relation is not None}
    advice = left_out(flatten(schema["properties"]))
    splits: tuple[Split, ...] = ("train", "val") if spec.dataset.val.has_data else ("train",)
    num_classes = spec.model.sem_seg_head.num_classes
    run = SearchRun(
        SearchSettings(
            algorithm=section.algorithm,  # type: ignore[arg-type]  # the spec refuses those that do not exist here
            direction=section.direction,
            max_trials=section.max_recommendations,
            max_epochs=spec.train.num_epochs,
            surrogate=section.surrogate,
            min_epochs=section.min_epochs,
            reduction_factor=section.reduction_factor,
            seed=spec.train.seed,
        ),
        "",
        parameters,
        {path: spec.value(path) for path in (*searched, *limits)},
        _identity(redacted(given_values(spec)), section, parameters),
        _trials(spec),
        tuple(dataset_files(spec, split, num_classes=num_classes) for split in splits),
        dict(spec.dataset.task_prob_train),
        validation_tasks(spec),
        device_choice(spec, "train"),
        section.max_concurrent,
        section.run_baseline,
        section.delete_intermediate_ckpt,
        {path: why for path, why in advice.items() if path in searched},
        {} if section.hyperparameters else {path: why for path, why in advice.items() if path not in searched},
    )
    return run.scored_by(metric) if metric else run


def _trials(spec: Spec) -> TrialSpecs:
    """The keys that the spec sets, trained directly."""
    given = given_values(spec) | {"automl_policy": "off"}
    given.pop("automl", None)
    always: dict[str, Any] = {}
    never: list[str] = []
    if spec.automl.algorithm in STOPPING:  # a score whenever one may be stopped
        always["train.validation_interval"] = spec.automl.min_epochs
        never.append("train.val_check_interval")
    if spec.is_changed("train.gpu_ids"):  # the trial sees no others
        always["train.num_gpus"] = len(spec.train.gpu_ids)
        never.append("train.gpu_ids")
    is_tracked = spec.wandb.enable and spec.is_set("wandb.enable")
    return TrialSpecs(given, always, (*never, *["wandb.run_id"] * is_tracked), spec.wandb.name if is_tracked else None)


def _identity(given: dict[str, Any], section: Automl, parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    kept = {name: part for name, part in given.items() if name not in OTHER_SECTIONS}
    keys = {path: value for path, value in flat(kept, LEAVES).items() if path not in OTHER_KEYS}
    searched = {f"range of {parameter.path}": parameter.describe() for parameter in parameters}
    return keys | {f"automl.{name}": getattr(section, name) for name in DEFINING} | searched


def _metric(spec: Spec) -> str:
    """`automl.metric`, or "" where that is not set. Raises SpecError for one that no trial has."""
    if spec.train.is_dry_run:
        raise SpecError("a dry run has no score to search for", where="train.is_dry_run")
    if spec.automl.metric == LOSS:
        return LOSS
    if not spec.dataset.val.has_data:
        raise SpecError(
            f"{spec.automl.metric} is taken on dataset.val, which is not set",
            where="automl.metric",
            hint=f"set dataset.val.annotations, or automl.metric={LOSS} with automl.direction=minimize",
        )
    validated = validation_tasks(spec)
    if not spec.is_set("automl.metric"):
        return ""
    refuse_unknown_score(validated, spec.automl.metric, "automl.metric")
    return spec.automl.metric
