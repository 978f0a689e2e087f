"""The section `automl`: what a search varies, how it proposes values, and when it ends."""

from typing import Any, Literal

from pydantic import NonNegativeInt, PositiveInt

from oneformer_jax.app.spec.field import Section, key

LOSS = "train_loss"
"""The one metric that is better when it is smaller: the mean training loss of an epoch."""


class Automl(Section):
    """`automl`: keys of this project. Where TAO's AutoML settings have a name for the same, it is accepted too."""

    algorithm: Literal[
        "bayesian",
        "random",
        "hyperband",
        "asha",
        "hyperband_es",
        "bohb",
        "dehb",
        "pbt",
        "bfbo",
        "llm",
        "hybrid",
        "autoresearch",
    ] = key(
        "bayesian",
        "algorithm",
        "bayesian: a model of the trials so far proposes; random; hyperband, asha: random values, and trials that are "
        "behind at a rung of epochs are stopped.",
        only=("bayesian", "random", "hyperband", "asha"),
        note="none of TAO's other algorithms exists here, and none is replaced by another",
        aliases=(("b", "bayesian"), ("h", "hyperband"), ("hes", "hyperband_es")),
        extension=True,
        tao="bayesian maximises a loss too",
    )
    surrogate: Literal["tpe", "gp"] = key(
        "tpe",
        "surrogate",
        "Model of the algorithm bayesian: tree-structured Parzen estimators, or a Gaussian process (needs PyTorch).",
        extension=True,
        tao="a Gaussian process",
    )
    metric: str = key(
        "mIoU",
        "metric",
        f"Score of a validation that is searched for, of a trial the best one; or {LOSS}, the mean loss of an epoch.",
        extension=True,
        tao="of a trial the last one counts",
    )
    direction: Literal["maximize", "minimize"] = key(
        "maximize",
        "direction",
        f"What is better: scores are maximized, {LOSS} is minimized; anything else is refused.",
        extension=True,
        tao="guessed from the metric's name, and ignored by bayesian",
    )
    max_recommendations: PositiveInt = key(
        20, "trials", "Trials of the study, those that fail or are stopped early included.", extension=True
    )
    min_epochs: PositiveInt = key(
        1, "smallest budget", "hyperband and asha: epochs before the first decision to stop a trial.", extension=True
    )
    reduction_factor: int = key(
        3,
        "reduction factor",
        "hyperband and asha: about one trial in so many goes on at a rung, and the next rung lies at as many times the "
        "epochs.",
        minimum=2,
        extension=True,
    )
    max_concurrent: NonNegativeInt = key(
        0,
        "trials side by side",
        "At most; 0: as many as there are devices for. On CPU one, unless this says more: then they share the cores.",
        extension=True,
    )
    hyperparameters: tuple[str, ...] = key(
        (), "searched keys", "The keys to search; empty: those that the schema offers.", extension=True
    )
    add_hyperparameters: tuple[str, ...] = key((), "more keys", "Keys to search besides those.", extension=True)
    remove_hyperparameters: tuple[str, ...] = key((), "fewer keys", "Keys of those not to search.", extension=True)
    custom_param_ranges: dict[str, dict[str, Any]] = key(
        {},
        "custom ranges",
        "By key: valid_min, valid_max, log, valid_options, option_weights, math_cond, depends_on; the key is searched.",
        extension=True,
    )
    run_baseline: bool = key(
        True, "baseline", "The first trial trains the spec as it is, so that the best is never worse.", extension=True
    )
    delete_intermediate_ckpt: bool = key(
        True,
        "delete checkpoints",
        "Keep the checkpoints of the best trial only.",
        extension=True,
    )
    skill_dir: str = key(
        "",
        "skill folder",
        "Folder with schemas/train.schema.json and references/spec_template_train.yaml, in which the search looks for "
        "what it may change; empty: the schema of this project.",
        extension=True,
    )
    results_dir: str = key("", "Results directory", "Folder of this action; empty: its own one.", extension=True)
