"""Where a training starts: the run's newest checkpoint, another run's, pretrained weights, or random ones."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from rich.console import Console

from converters.fit import fit_backbone, fit_model
from converters.rules import ConversionError, Report
from converters.weights import Weights, read_weights
from oneformer_jax.app.settings.model import differences, model_config
from oneformer_jax.app.spec import Spec
from oneformer_jax.app.spec.field import plain
from oneformer_jax.checkpoints import read as ckpt
from oneformer_jax.errors import CheckpointError
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.training.precision import first_loss_scale
from oneformer_jax.training.sharding import put, put_replicated, state_shardings
from oneformer_jax.training.step import TrainState


@dataclass(frozen=True)
class StartingPoint:
    """The architecture, the updates done so far, and a function that makes the state to go on from."""

    config: OneFormerConfig
    step: int
    state: Callable[[], TrainState]


def starting_point(
    spec: Spec, newest: Path | None, optimizer: optax.GradientTransformation, console: Console, mesh: Mesh
) -> StartingPoint:
    """`newest` is the newest checkpoint of the run itself; else the spec's keys decide. The state lives on `mesh`.

    Raises CheckpointError where a checkpoint cannot be read or does not fit the spec's architecture.
    """
    resumed = spec.train.resume_training_checkpoint_path
    step_dir = newest or (ckpt.find_checkpoint(Path(resumed)) if resumed else None)
    if step_dir is not None:
        return _resume(spec, step_dir, optimizer, console, mesh)

    model = read_weights(spec.train.pretrained_model) if spec.train.pretrained_model else None
    config = model_config(spec, task_pad_id=model.config.task_pad_id if model else 0)
    params = _fresh_params(spec, config)
    if model is not None:
        params = _pretrained_model(params, model, config, console)
    if spec.train.pretrained_backbone:
        params |= _pretrained_backbone(params, spec.train.pretrained_backbone, config, console)
    shardings = partial(state_shardings, mesh=mesh, strategy=spec.train.distributed_strategy)

    def state() -> TrainState:
        placed = put(params, shardings(params))
        init = jax.jit(optimizer.init, out_shardings=shardings(jax.eval_shape(optimizer.init, params)))
        average = jax.tree.map(jnp.copy, placed) if spec.train.ema_decay else None
        scale = put_replicated(first_loss_scale(spec.train.precision), mesh)
        return TrainState(put_replicated(np.zeros((), np.int32), mesh), placed, init(placed), scale, average)

    return StartingPoint(config, 0, state)


def _fresh_params(spec: Spec, config: OneFormerConfig) -> dict[str, Any]:
    params = oneformer.init(config, jax.random.key(spec.train.seed))
    return params | {"logit_scale": jnp.log(1.0 / spec.model.one_former.contrastive_temperature)}


def _resume(
    spec: Spec, step_dir: Path, optimizer: optax.GradientTransformation, console: Console, mesh: Mesh
) -> StartingPoint:
    description = ckpt.load_description(step_dir)
    config = model_config(spec, task_pad_id=description.model.task_pad_id)
    _refuse_other_architecture(description.model, config, str(step_dir))
    _refuse_other_frozen_parts(description.spec, spec, str(step_dir))

    def state() -> TrainState:
        console.print(f"resuming from step {description.step}: {step_dir}")
        like = description.shapes()
        shardings = partial(state_shardings, mesh=mesh, strategy=spec.train.distributed_strategy)

        def load(item: str, like: Any) -> Any:
            return ckpt.load_item(step_dir, item, ckpt.placed(like, shardings(like)))

        opt_state = load("optimizer", jax.eval_shape(optimizer.init, like))
        scale, average = put_replicated(first_loss_scale(spec.train.precision), mesh), None
        if scale is not None and ckpt.has_item(step_dir, "loss_scale"):
            scale = load("loss_scale", scale)
        if spec.train.ema_decay:
            # A run that kept no average begins one with the parameters of this step.
            average = load("average" if ckpt.has_item(step_dir, "average") else "params", like)
        step = put_replicated(np.asarray(description.step, np.int32), mesh)
        return TrainState(step, load("params", like), opt_state, scale, average)

    return StartingPoint(config, description.step, state)


def _pretrained_model(
    fresh: dict[str, Any], weights: Weights, config: OneFormerConfig, console: Console
) -> dict[str, Any]:
    if "predictor" not in weights.params:
        raise CheckpointError("a backbone alone", where=weights.location, hint="name it in train.pretrained_backbone")
    _refuse_other_architecture(_adaptable(weights, config), config, weights.location)
    params, report = fit_model(weights.params, fresh)
    _tell(f"model: {weights.location}", report, console)
    return params


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


def _pretrained_backbone(
    fresh: dict[str, Any], location: str, config: OneFormerConfig, console: Console
) -> dict[str, Any]:
    weights = read_weights(location)
    try:
        backbone, report = fit_backbone(weights.params["backbone"], fresh["backbone"])
    except ConversionError as error:
        theirs = OneFormerConfig(backbone=weights.config.backbone)
        different = differences(theirs, OneFormerConfig(backbone=config.backbone))
        hint = f"the weights have {'; '.join(different)}" if different else error.hint
        raise CheckpointError(error.what, where=location, hint=hint) from error
    _tell(f"backbone: {location}", report, console)
    return {"backbone": backbone}


def _tell(what: str, report: Report, console: Console) -> None:
    console.print(f"{what}: {'; '.join(report.lines())}", highlight=False, soft_wrap=True)


def _refuse_other_frozen_parts(theirs: dict[str, Any], spec: Spec, where: str) -> None:
    saved = flatten_dict(theirs, sep=".")
    for key in ("train.freeze", "model.backbone.freeze_at"):
        if key in saved and saved[key] != plain(spec.value(key)):
            raise CheckpointError(
                f"{key} was {saved[key]}, now it is {plain(spec.value(key))}: there is no optimizer state for that",
                where=where,
                hint="keep the value, or name this checkpoint in train.pretrained_model and another results_dir",
            )


def _refuse_other_architecture(theirs: OneFormerConfig, ours: OneFormerConfig, where: str) -> None:
    different = differences(theirs, ours)
    if different:
        raise CheckpointError(
            "the checkpoint's architecture differs from the spec's: " + "; ".join(different),
            where=where,
            hint="set these model keys of the spec to the checkpoint's values, or train in another results_dir",
        )
