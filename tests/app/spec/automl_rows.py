"""Rows of `automl` and of the keys that belong to it."""

from typing import Any

from key_rows import Changes, Observed, Rows, Shown
from stopped_actions import result_folder

from oneformer_jax.app.automl.policy import train_schema
from oneformer_jax.app.automl.search import search_settings
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
    """A field of the study's settings."""
    return lambda spec: getattr(search_settings(spec), field)


def searched(spec: Spec) -> set[str]:
    """The keys that a study varies."""
    return {parameter.path for parameter in search_space(spec, train_schema(None))}


def largest_lr(spec: Spec) -> Any:
    """The upper end of the first searched key."""
    return search_space(spec, train_schema(None))[0].high


AUTOML: Rows = {
    "automl.algorithm": Changes("asha", setting("algorithm"), "asha"),
    "automl.surrogate": Changes("gp", setting("surrogate"), "gp"),
    "automl.metric": Shown("app/automl/test_progress.py::test_the_loss_of_an_epoch_is_a_metric_too"),
    "automl.direction": Changes("minimize", setting("direction"), "minimize", together=("automl.metric=train_loss",)),
    "automl.max_recommendations": Changes("7", setting("max_trials"), 7),
    "automl.min_epochs": Changes("2", setting("min_epochs"), 2),
    "automl.reduction_factor": Changes("4", setting("reduction_factor"), 4),
    "automl.max_concurrent": Shown("app/automl/test_devices.py::test_cores_are_shared_out_if_somebody_asks_for_it"),
    "automl.hyperparameters": Changes("[train.optim.lr]", searched, {"train.optim.lr"}),
    "automl.add_hyperparameters": Changes("[train.optim.gamma]", searched, OFFERED | {"train.optim.gamma"}),
    "automl.remove_hyperparameters": Changes("[train.optim.lr]", searched, OFFERED - {"train.optim.lr"}),
    "automl.custom_param_ranges": Changes("{train.optim.lr: {valid_max: 0.5}}", largest_lr, 0.5),
    "automl.run_baseline": Shown(
        "app/automl/test_study.py::test_the_first_trial_is_the_spec_itself_unless_told_otherwise"
    ),
    "automl.delete_intermediate_ckpt": Shown("app/automl/test_search.py::test_only_the_best_checkpoint_stays"),
    "automl.skill_dir": Shown("app/automl/test_search.py::test_a_schema_of_ones_own_decides_what_is_searched"),
    "automl.results_dir": Changes("HERE/mine", result_folder("automl"), "mine", beside=("results_dir=HERE",)),
    "automl_policy": Shown(
        "app/automl/test_policy.py::test_the_option_counts_before_the_spec_and_neither_means_a_training"
    ),
    "train.monitor": Changes("PQ", scoring.monitor, "PQ", together=("model.test.panoptic_on=true",)),
}

ROWS: tuple[Rows, ...] = (AUTOML,)
