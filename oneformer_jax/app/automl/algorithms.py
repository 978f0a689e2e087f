"""How a study proposes values and which trials it stops early: Optuna's samplers and pruners by TAO's names.

bayesian: tree-structured Parzen estimators (Bergstra et al. 2011, multivariate: Falkner et al. 2018) or a Gaussian
process with log expected improvement. hyperband (Li et al. 2017) and asha (Li et al. 2018): random values; a trial
that is not among the best 1/`reduction_factor` of those that came to the same rung of epochs is stopped there, decided
when it comes there (asynchronously), so that no training waits for another.
"""

import importlib.util
import warnings

import numpy as np
import optuna

from oneformer_jax.app.automl.request import SearchSettings
from oneformer_jax.errors import OneFormerError

RANDOM_TRIALS = 5
"""Trials of bayesian that are drawn at random, before its model has something to go by."""

optuna.logging.set_verbosity(optuna.logging.ERROR)


def make_sampler(settings: SearchSettings, number: int) -> optuna.samplers.BaseSampler:
    """What proposes trial `number`: a pure function of the settings, the number and the trials before.

    A study that goes on in another process so proposes what it would have proposed in the first one.
    """
    seed = int(np.random.SeedSequence([settings.seed, number]).generate_state(1)[0])
    if settings.algorithm != "bayesian":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # both have been so for years
        if settings.surrogate == "gp":
            require_torch()
            return optuna.samplers.GPSampler(seed=seed, n_startup_trials=RANDOM_TRIALS, deterministic_objective=False)
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=RANDOM_TRIALS, multivariate=True, group=True, constant_liar=True
        )


def make_pruner(settings: SearchSettings) -> optuna.pruners.BasePruner:
    """What decides at each report whether a trial is stopped."""
    first, factor = settings.min_epochs, settings.reduction_factor
    if settings.algorithm == "hyperband":
        return optuna.pruners.HyperbandPruner(first, settings.max_epochs, factor)
    if settings.algorithm == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(first, factor)
    return optuna.pruners.NopPruner()


def require_torch() -> None:
    """Raises OneFormerError where the Gaussian process cannot run: Optuna's is written in PyTorch."""
    if importlib.util.find_spec("torch") is None:
        raise OneFormerError(
            "the Gaussian process needs PyTorch, which is not installed",
            where="automl.surrogate",
            hint="pip install torch (the CPU build will do), or set automl.surrogate=tpe",
        )
