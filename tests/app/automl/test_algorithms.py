"""Each algorithm beside random search on a surrogate whose optimum is known, at equal epochs."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import wilcoxon

from oneformer_jax.app.automl.parameter import Number
from oneformer_jax.app.automl.request import SearchSettings
from oneformer_jax.app.automl.study import Study
from oneformer_jax.app.spec import load_spec
from oneformer_jax.errors import OneFormerError, SpecError

SEEDS = 20
MAX_EPOCHS = 27
SPACE = (Number("lr", 1e-6, 1e-2, log=True), Number("weight_decay", 1e-4, 0.5, log=True))
BASE = {"lr": 1e-5, "weight_decay": 0.05}
BEST_LR, BEST_DECAY = 3e-4, 0.02


def regret(values: dict[str, Any]) -> float:
    """Of the fully trained model: 0 at the optimum, quadratic in the decades from it, as a share of the ranges."""
    lr = math.log10(values["lr"] / BEST_LR) / 4
    decay = math.log10(values["weight_decay"] / BEST_DECAY) / math.log10(5000)
    return lr**2 + decay**2 / 2


def regret_after(algorithm: str, surrogate: str, direction: str, seed: int, epochs: int) -> float:
    """Of the best trial that came to its end before so many epochs were trained over all trials."""
    settings = SearchSettings(algorithm, direction, 10**6, MAX_EPOCHS, surrogate, seed=seed)  # type: ignore[arg-type]
    study = Study(settings, SPACE, BASE)
    best = math.inf
    while True:
        trial = study.propose()
        assert trial is not None
        for epoch in range(1, MAX_EPOCHS + 1):
            if epochs == 0:
                return best
            epochs -= 1
            still_to_learn = 0.5 * math.exp(-3 * epoch / MAX_EPOCHS)
            score = settings.sign * (0.8 - regret(trial.values) - still_to_learn)
            if trial.report(epoch, score):
                break
        else:
            trial.complete(score)
            best = min(best, regret(trial.values))
        if epochs < MAX_EPOCHS and algorithm in ("random", "bayesian"):
            return best


@pytest.mark.tao(37)
@pytest.mark.prove  # in `make test` the one below
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize(
    ("algorithm", "surrogate", "trials"),
    [("bayesian", "tpe", 32), ("bayesian", "gp", 10), ("hyperband", "tpe", 32), ("asha", "tpe", 12)],
)
def test_half_of_the_regret_of_random_search(algorithm: str, surrogate: str, trials: int, direction: str) -> None:
    if surrogate == "gp":
        # Its threads wait by spinning, and these matrices are small.
        pytest.importorskip("torch").set_num_threads(1)
    seeds = range(SEEDS) if direction == "maximize" else range(1000, 1000 + SEEDS)
    epochs = trials * MAX_EPOCHS
    random = np.array([regret_after("random", "tpe", direction, seed, epochs) for seed in seeds])
    ours = np.array([regret_after(algorithm, surrogate, direction, seed, epochs) for seed in seeds])
    p = wilcoxon(ours, random, alternative="less").pvalue
    print(f"\n{algorithm} {surrogate} {direction}: {np.median(ours):.2g} against {np.median(random):.2g}, p {p:.2g}")
    assert np.median(ours) <= 0.5 * np.median(random)
    assert p < 0.01


@pytest.mark.tao(37)
@pytest.mark.parametrize(("algorithm", "direction"), [("bayesian", "maximize"), ("asha", "minimize")])
def test_less_regret_than_random_search(algorithm: str, direction: str) -> None:
    regrets = {
        name: np.median([regret_after(name, "tpe", direction, seed, 16 * MAX_EPOCHS) for seed in range(5)])
        for name in ("random", algorithm)
    }
    assert regrets[algorithm] < regrets["random"]


@pytest.mark.tao(37)
@pytest.mark.parametrize(
    "name", ["hyperband_es", "hes", "bohb", "dehb", "pbt", "bfbo", "llm", "hybrid", "autoresearch", "PBT"]
)
def test_algorithms_that_are_not_there_are_refused_by_name(name: str) -> None:
    given = {"hes": "hyperband_es"}.get(name, name.lower())
    with pytest.raises(SpecError, match=f"automl.algorithm: '{given}' .*not available.*use bayesian or random or"):
        load_spec(None, [f"automl.algorithm={name}"])


@pytest.mark.parametrize(("name", "meant"), [("Bayesian", "bayesian"), ("b", "bayesian"), ("h", "hyperband")])
def test_taos_spellings_of_those_that_are_there(name: str, meant: str) -> None:
    assert load_spec(None, [f"automl.algorithm={name}"]).automl.algorithm == meant


@pytest.mark.tao(37)
def test_metric_and_direction_have_to_agree() -> None:
    assert load_spec(None, ["automl.metric=train_loss", "automl.direction=minimize"]).automl.direction == "minimize"
    for metric, direction in (("train_loss", "maximize"), ("mIoU", "minimize")):
        with pytest.raises(SpecError, match=f"automl.direction is {direction}, but {metric} is better"):
            load_spec(None, [f"automl.metric={metric}", f"automl.direction={direction}"])


def test_the_gaussian_process_without_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OneFormerError, match=r"automl\.surrogate: the Gaussian process needs PyTorch"):
        Study(SearchSettings("bayesian", "maximize", 3, 1, "gp"), SPACE, BASE)


def test_a_database_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "study.db"
    with pytest.raises(OneFormerError, match="the study cannot be written") as error:
        Study(SearchSettings("bayesian", "maximize", 3, 1, "tpe"), SPACE, BASE, file=file)
    assert "free disk space" in str(error.value)
