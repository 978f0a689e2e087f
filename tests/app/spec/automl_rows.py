"""Rows of `automl` and of the keys that belong to it."""

from operator import attrgetter
from typing import Any

from key_rows import Changes, Observed, Rows, Shown, result_folder

from oneformer_jax.app.automl.policy import train_schema
from oneformer_jax.app.automl.request import search_run
from oneformer_jax.app.automl.search_space import search_space
from oneformer_jax.app.settings import evaluation as scoring
from oneformer_jax.app.spec import Spec

OFFERED = {
    "train.optim.lr",
    "train.optim.backbone_multiplier",
    "train.optim.momentum",
    "train.optim.weight_decay",
}


def setting(field: str) -> Observed:
    """A field of what a search is to do."""
    return lambda spec: attrgetter(field)(search_run(spec))


def searched(spec: Spec) -> set[str]:
    """The keys that a study varies."""
    return {parameter.path for parameter in search_space(spec, train_schema(None))}


def largest_lr(spec: Spec) -> Any:
    """The upper end of the first searched key."""
    return search_space(spec, train_schema(None))[0].high


AUTOML: Rows = {
    "automl.algorithm": Changes("asha", setting("study.algorithm"), "asha"),
    "automl.surrogate": Changes("gp", setting("study.surrogate"), "gp"),
    "automl.metric": Changes("train_loss", setting("metric"), "train_loss", together=("automl.direction=minimize",)),
    "automl.direction": Changes(
        "minimize", setting("study.direction"), "minimize", together=("automl.metric=train_loss",)
    ),
    "automl.max_recommendations": Changes("7", setting("study.max_trials"), 7),
    "automl.min_epochs": Changes("2", setting("study.min_epochs"), 2),
    "automl.reduction_factor": Changes("4", setting("study.reduction_factor"), 4),
    "automl.max_concurrent": Changes("2", setting("at_most"), 2),
    "automl.hyperparameters": Changes("[train.optim.lr]", searched, {"train.optim.lr"}),
    "automl.add_hyperparameters": Changes("[train.optim.gamma]", searched, OFFERED | {"train.optim.gamma"}),
    "automl.remove_hyperparameters": Changes("[train.optim.lr]", searched, OFFERED - {"train.optim.lr"}),
    "automl.custom_param_ranges": Changes("{train.optim.lr: {valid_max: 0.5}}", largest_lr, 0.5),
    "automl.run_baseline": Changes("false", setting("run_baseline"), False),
    "automl.delete_intermediate_ckpt": Changes("false", setting("keep_only_the_best"), False),
    "automl.skill_dir": Shown("app/automl/test_search.py::test_a_schema_of_ones_own_decides_what_is_searched"),
    "automl.results_dir": Changes("HERE/mine", result_folder("automl"), "mine", beside=("results_dir=HERE",)),
    "automl_policy": Shown(
        "app/automl/test_policy.py::test_the_option_counts_before_the_spec_and_neither_means_a_training"
    ),
    "train.monitor": Changes("PQ", scoring.monitor, "PQ", together=("model.test.panoptic_on=true",)),
}

ROWS: tuple[Rows, ...] = (AUTOML,)
