"""Where a training starts: the run's newest checkpoint, another run's, pretrained weights, or random ones."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from rich.console import Console

from converters.fit import fit_backbone, fit_model
from converters.rules import ConversionError, Report
from converters.weights import Weights, read_weights
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.opened import agree
from oneformer_jax.app.run.waiting import waiting
from oneformer_jax.app.settings.model import architecture_differences, facts_of
from oneformer_jax.checkpoints import read as ckpt
from oneformer_jax.checkpoints.agreement import Facts
from oneformer_jax.checkpoints.description import Description, Training
from oneformer_jax.checkpoints.store import Checkpoints
from oneformer_jax.errors import CheckpointError
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import Params
from oneformer_jax.training.distributed import gather
from oneformer_jax.training.loop import LoopSettings
from oneformer_jax.training.run import TrainingRun
from oneformer_jax.training.sharding import put, put_replicated, state_shardings
from oneformer_jax.training.step import TrainState, first_loss_scale


@dataclass(frozen=True)
class StartingPoint:
    """The architecture, the updates done so far, the length of the run that has done them, what it has seen, and a
    function that makes the state to go on from."""

    model: OneFormerConfig
    step: int
    loop: LoopSettings
    training: Training
    state: Callable[[], TrainState]


def newest_checkpoint(folder: Path, store: Checkpoints | None) -> Path | None:
    """The newest checkpoint of a run: the one that the first process sees, since file systems that several hosts share
    may show the others an older state. All processes must call it."""
    return gather(store.newest() if store else ckpt.latest(folder))[0]


def starting_point(
    settings: TrainingRun, loop: LoopSettings, now: Description, newest: Path | None, mesh: Mesh, run: Run
) -> StartingPoint:
    """`newest` is the newest checkpoint of the run itself; without one `settings.start` decides. `now` is the
    description of a run that begins. The state lives on `mesh`.

    Raises CheckpointError where a checkpoint cannot be read, does not fit the architecture of the settings, or was
    trained with what no run can go on without. Nothing is compiled before.
    """
    recipe, start = settings.recipe, settings.start
    step_dir = newest or (ckpt.find_checkpoint(start.checkpoint) if start.checkpoint else None)
    if step_dir is not None:
        return _resume(settings, loop, now, step_dir, mesh, run)

    told = facts_of(recipe.model)
    weights = read_weights(start.model, otherwise=told) if start.model else None
    model = replace(recipe.model, task_pad_id=weights.config.task_pad_id if weights else recipe.model.task_pad_id)
    fitted: Params = oneformer.shapes(model)
    if weights is not None:
        _refuse_what_does_not_fit(weights, model)
        was, known = Facts(), weights.description
        if known is not None:
            categories = known.categories if weights.class_names else None
            was = Facts(categories, statistics=(known.pixel_mean, known.pixel_std))
        agree("fine-tune", was, Facts(now.categories, statistics=(now.pixel_mean, now.pixel_std)), start.model, run)
        fitted, report = fit_model(weights.params, fitted, classes=(weights.class_names, now.categories.names))
        _tell(f"model: {weights.location}", report, run.console)
    if start.backbone:
        fitted |= _pretrained_backbone(oneformer.shapes(model), start.backbone, model, run.console)
    with waiting("compiling and drawing initial parameters", run.console):
        params = oneformer.init(model, jax.random.key(recipe.step.seed))
    params |= {"logit_scale": jnp.log(1.0 / recipe.temperature)}
    params = jax.tree.map(lambda fit, fresh: fresh if isinstance(fit, jax.ShapeDtypeStruct) else fit, fitted, params)
    optimizer = recipe.make_optimizer(loop)

    def state() -> TrainState:
        shardings = partial(state_shardings, mesh=mesh, strategy=recipe.step.strategy)
        placed = put(params, shardings(params))
        init = jax.jit(optimizer.init, out_shardings=shardings(jax.eval_shape(optimizer.init, params)))
        average = jax.tree.map(jnp.copy, placed) if recipe.step.average_decay else None
        scale = put_replicated(first_loss_scale(recipe.step.precision), mesh)
        return TrainState(put_replicated(np.zeros((), np.int32), mesh), placed, init(placed), scale, average)

    assert now.training is not None
    return StartingPoint(model, 0, loop, now.training, state)


def _resume(
    settings: TrainingRun, loop: LoopSettings, now: Description, step_dir: Path, mesh: Mesh, run: Run
) -> StartingPoint:
    description, options = ckpt.load_description(step_dir), settings.recipe.step
    model = replace(settings.recipe.model, task_pad_id=description.model.task_pad_id)
    _refuse_other_architecture(description.model, model, str(step_dir), "train in another results_dir")
    _refuse_other_optimizer_state(description.spec, settings.spec, str(step_dir))
    agree("resume", Facts.of(description), Facts.of(now), str(step_dir), run)
    assert now.training is not None
    training = _progress(description, now.training, loop, run)
    loop = loop.resumed(description.step, training.epochs)
    optimizer = settings.recipe.make_optimizer(loop)

    def state() -> TrainState:
        run.console.print(
            f"resuming from step {description.step} ({training.images} images, epoch {float(training.epochs):.4g}): "
            f"{step_dir}"
        )
        like = description.shapes(str(step_dir))
        shardings = partial(state_shardings, mesh=mesh, strategy=options.strategy)

        def load(item: str, like: Any) -> Any:
            return ckpt.load_item(step_dir, item, ckpt.placed(like, shardings(like)))

        opt_state = load("optimizer", jax.eval_shape(optimizer.init, like))
        scale, average = put_replicated(first_loss_scale(options.precision), mesh), None
        if scale is not None and ckpt.has_item(step_dir, "loss_scale"):
            scale = load("loss_scale", scale)
        if options.average_decay:
            # A run that kept no average begins one with the parameters of this step.
            average = load("average" if ckpt.has_item(step_dir, "average") else "params", like)
        step = put_replicated(np.asarray(description.step, np.int32), mesh)
        return TrainState(step, load("params", like), opt_state, scale, average)

    return StartingPoint(model, description.step, loop, training, state)


def _progress(description: Description, now: Training, loop: LoopSettings, run: Run) -> Training:
    """What the run has seen, with what it trains with now. Checkpoints of 0.2 do not say."""
    was = description.training
    if was is not None:
        return replace(now, images=was.images, epochs=was.epochs)
    images, epochs = description.step * loop.images_per_step, Fraction(description.step, loop.steps_per_epoch)
    run.status.warning(
        f"the checkpoint of step {description.step} does not say how many images it has seen: taken for "
        f"{images}, {loop.images_per_step} a step as now"
    )
    return replace(now, images=images, epochs=epochs)


def _refuse_what_does_not_fit(weights: Weights, config: OneFormerConfig) -> None:
    if "predictor" not in weights.params:
        raise CheckpointError("a backbone alone", where=weights.location, hint="name it in train.pretrained_backbone")
    _refuse_other_architecture(
        _adaptable(weights, config), config, weights.location, "leave train.pretrained_model out"
    )


def _adaptable(weights: Weights, config: OneFormerConfig) -> OneFormerConfig:
    """The weights' architecture but for what `fit_model` adapts, which is as in `config`."""
    theirs, ours = weights.config, config
    text = replace(theirs.text_encoder, n_ctx=ours.text_encoder.n_ctx)
    return replace(
        theirs,
        num_classes=ours.num_classes,
        backbone=theirs.backbone.adapted_to(ours.backbone),
        transformer=replace(theirs.transformer, num_queries=ours.transformer.num_queries),
        text_encoder=ours.text_encoder if "text_encoder" in weights.absent else text,
    )


def _pretrained_backbone(shapes: Params, location: str, config: OneFormerConfig, console: Console) -> Params:
    weights = read_weights(location, otherwise=facts_of(config))
    try:
        backbone, report = fit_backbone(weights.params["backbone"], shapes["backbone"])
    except ConversionError as error:
        theirs = OneFormerConfig(backbone=weights.config.backbone)
        different = architecture_differences(theirs, OneFormerConfig(backbone=config.backbone))
        hint = f"the weights have {'; '.join(different)}" if different else error.hint
        raise CheckpointError(error.what, where=location, hint=hint) from error
    _tell(f"backbone: {location}", report, console)
    return {"backbone": backbone}


def _tell(what: str, report: Report, console: Console) -> None:
    console.print(f"{what}: {'; '.join(report.lines())}")


def _refuse_other_optimizer_state(theirs: dict[str, Any], ours: dict[str, Any], where: str) -> None:
    saved, now = flatten_dict(theirs, sep="."), flatten_dict(ours, sep=".")
    for key in ("train.freeze", "model.backbone.freeze_at", "train.optim.type"):
        if key in saved and saved[key] != now[key]:
            raise CheckpointError(
                f"{key} was {saved[key]}, now it is {now[key]}: there is no optimizer state for the new value",
                where=where,
                hint="keep the value, or name this checkpoint in train.pretrained_model and another results_dir",
            )


def _refuse_other_architecture(theirs: OneFormerConfig, ours: OneFormerConfig, where: str, otherwise: str) -> None:
    different = architecture_differences(theirs, ours)
    if different:
        raise CheckpointError(
            "the checkpoint's architecture differs from the spec's: " + "; ".join(different),
            where=where,
            hint=f"set these model keys of the spec to the checkpoint's values, or {otherwise}",
        )
