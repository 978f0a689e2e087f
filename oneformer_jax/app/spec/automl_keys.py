"""The section `automl`: what a search varies, how it proposes values, and when it ends."""

from typing import Any, Literal, get_args

from pydantic import NonNegativeInt, PositiveInt

from oneformer_jax.app.spec.field import Section, location_key, own_key, results_folder

LOSS = "train_loss"
"""The one metric that is better when it is smaller: the mean training loss of an epoch."""

Algorithm = Literal["bayesian", "random", "hyperband", "asha"]
OtherAlgorithm = Literal["hyperband_es", "bohb", "dehb", "pbt", "bfbo", "llm", "hybrid", "autoresearch"]
"""TAO's algorithms that do not exist here."""


class Automl(Section):
    """`automl`: keys of this project. Where TAO's AutoML settings have a name for the same, it is accepted too."""

    algorithm: Literal[Algorithm, OtherAlgorithm] = own_key(
        "bayesian",
        "algorithm",
        "bayesian: a model of the trials so far proposes values; random: random values; hyperband, asha: random "
        "values, and trials that are behind after a given number of epochs are stopped early.",
        only=get_args(Algorithm),
        note="TAO's other algorithms are not available, and none is silently replaced by another",
        aliases=(("b", "bayesian"), ("h", "hyperband"), ("hes", "hyperband_es")),
        tao="bayesian maximises even a loss",
    )
    surrogate: Literal["tpe", "gp"] = own_key(
        "tpe",
        "surrogate",
        "Model used by the algorithm bayesian: tree-structured Parzen estimators (tpe) or a Gaussian process (gp,"
        " which needs PyTorch).",
        tao="a Gaussian process",
    )
    metric: str = own_key(
        "mIoU",
        "metric",
        f"Validation score to optimise, taking the best value of each trial, or {LOSS}, the mean loss of an epoch.",
        unset="the score of the first task that is validated",
        tao="the last value of a trial is used, not its best",
    )
    direction: Literal["maximize", "minimize"] = own_key(
        "maximize",
        "direction",
        f"Scores must be maximized and {LOSS} must be minimized; anything else is refused.",
        tao="guessed from the metric's name and ignored by bayesian",
    )
    max_recommendations: PositiveInt = own_key(
        20, "trials", "Number of trials in the study, including those that fail or are stopped early."
    )
    min_epochs: PositiveInt = own_key(
        1, "smallest budget", "hyperband and asha: number of epochs before a trial can be stopped."
    )
    reduction_factor: int = own_key(
        3,
        "reduction factor",
        "hyperband and asha: about one in this many trials is continued at each decision (rung), and the next "
        "decision comes after this many times as many epochs.",
        minimum=2,
    )
    max_concurrent: NonNegativeInt = own_key(
        0,
        "trials side by side",
        "Largest number of trials that run at the same time; 0: as many as there are devices for. On CPU one "
        "trial runs at a time unless this is larger; the trials then share the cores.",
    )
    hyperparameters: tuple[str, ...] = own_key(
        (), "searched keys", "Keys to search; empty: those that the schema offers."
    )
    add_hyperparameters: tuple[str, ...] = own_key((), "more keys", "Additional keys to search.")
    remove_hyperparameters: tuple[str, ...] = own_key((), "fewer keys", "Keys to leave out of the search.")
    custom_param_ranges: dict[str, dict[str, Any]] = own_key(
        {},
        "custom ranges",
        "Ranges by key: valid_min, valid_max, log, valid_options, option_weights, math_cond, depends_on. A key "
        "that is listed here is searched.",
    )
    run_baseline: bool = own_key(
        True,
        "baseline",
        "Train the spec unchanged as the first trial, so that the best trial is never worse than the spec.",
    )
    delete_intermediate_ckpt: bool = own_key(True, "delete checkpoints", "Keep the checkpoints of the best trial only.")
    skill_dir: str = location_key(
        "",
        "skill folder",
        "Folder with schemas/train.schema.json and references/spec_template_train.yaml, which define what the "
        "search may change; empty: the schema of this project.",
        extension=True,
    )
    results_dir: str = results_folder(extension=True)
