"""Pretrained parameters in a model that differs in window size, image size, classes or queries."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from converters.names.radio import ADDED_TO_BACKBONES
from converters.rules import ConversionError, Params, Report, within
from oneformer_jax.models.oneformer import TRAINING_ONLY
from oneformer_jax.models.ops import interpolation_matrix

ENOUGH = 0.9
"""The share of a backbone's names that weights must have in common with it."""

COUNTED = {
    "predictor/class_embed/kernel": (1, "classes"),
    "predictor/class_embed/bias": (0, "classes"),
    "predictor/query_embed": (0, "queries"),
    "prompt_ctx": (0, "context rows"),
}
"""Parameters with an axis whose size is a choice of the task: with another size they start afresh."""

CLASSIFIER = ("predictor/class_embed/kernel", "predictor/class_embed/bias")
"""Their last axis: the classes, and no-object."""

Flat = Mapping[str, Any]
Adapt = Callable[[str, np.ndarray, tuple[int, ...]], tuple[np.ndarray | None, str]]
"""Path, values and the shape to fit -> values in that shape or None for a fresh start, and how; "" means neither."""


def fit_backbone(params: Params, template: Params) -> tuple[Params, Report]:
    """A backbone (the tree under `backbone`) in the architecture of `template`, which holds fresh parameters.

    Relative position biases of another window size and position embeddings of another image size are interpolated
    (bicubic, as the authors of Swin and TAO do); what `params` lack stays fresh. Raises ConversionError where less
    than 90 % of the names agree (what OneFormer adds to a backbone apart) or shapes differ
    otherwise.
    """
    model, weights = flatten_dict(template, sep="/"), flatten_dict(params, sep="/")
    added = {path for path in model if any(within(f"backbone/{path}", part) for part in ADDED_TO_BACKBONES)}
    names = (model.keys() | weights.keys()) - added
    agreeing = len(names & model.keys() & weights.keys())
    if agreeing < ENOUGH * len(names):
        missing, unexpected = sorted(model.keys() - weights.keys() - added), sorted(weights.keys() - model.keys())
        report = Report(missing=tuple(missing), unexpected=tuple(unexpected))
        hint = f"only {agreeing} of {len(names)} names agree: model.backbone must match these weights"
        raise ConversionError(report, where="pretrained backbone", hint=hint)
    return _fit(
        weights, model, _interpolate, fresh=model.keys() - weights.keys(), dropped=weights.keys() - model.keys()
    )


def fit_model(
    params: Params, template: Params, *, classes: tuple[Sequence[str], Sequence[str]] = ((), ())
) -> tuple[Params, Report]:
    """A whole model in the architecture of `template`, which holds fresh parameters or, for those, their shapes.

    `classes` are the names that the classifier of `params` gives its outputs and those that it is to give them,
    () where they are not known. The same ones are put into the new order; for others the classifier starts afresh.

    With another number of classes, queries or context rows these parameters start afresh; tables of the backbone are
    interpolated as by `fit_backbone`. Parts for training alone may be absent on either side. Raises ConversionError
    for all other differences in names or shapes.
    """
    model, weights = flatten_dict(template, sep="/"), flatten_dict(params, sep="/")
    fresh = {path for path in model.keys() - weights.keys() if path.split("/")[0] in TRAINING_ONLY}
    dropped = {path for path in weights.keys() - model.keys() if path.split("/")[0] in TRAINING_ONLY}
    theirs, ours = map(tuple, classes)
    if theirs and ours and theirs != ours:
        for path in [path for path in CLASSIFIER if path in weights]:
            if sorted(theirs) == sorted(ours):
                order = [*(theirs.index(name) for name in ours), *range(len(theirs), weights[path].shape[-1])]
                weights[path] = np.asarray(weights[path])[..., order]
            elif weights[path].shape == model[path].shape:
                del weights[path]
                fresh.add(path)

    def adapt(path: str, array: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray | None, str]:
        axis, what = COUNTED.get(path, (-1, ""))
        if array.ndim == len(shape) and [i for i, size in enumerate(shape) if array.shape[i] != size] == [axis]:
            return None, f"newly initialised: {shape[axis]} {what} instead of {array.shape[axis]}"
        return _interpolate(path.removeprefix("backbone/"), array, shape)

    return _fit(weights, model, adapt, fresh=fresh, dropped=dropped)


def _fit(weights: Flat, model: Flat, adapt: Adapt, *, fresh: set[str], dropped: set[str]) -> tuple[Params, Report]:
    flat = dict(model)
    reshaped: dict[str, str] = {}
    misfits: dict[str, str] = {}
    for path in model.keys() & weights.keys():
        array, shape = np.asarray(weights[path]), tuple(model[path].shape)
        adapted: np.ndarray | None = array
        if array.shape != shape:
            adapted, how = adapt(path, array, shape)
            if how:
                reshaped[path] = how
            else:
                misfits[path] = f"{array.shape} instead of {shape}"
        if adapted is not None:
            flat[path] = adapted.astype(model[path].dtype, copy=False)
    report = Report(
        matched=tuple(path for path in model if path in weights and path not in reshaped),
        skipped=dict.fromkeys(sorted(dropped), "not in this model"),
        absent=tuple(sorted(fresh)),
        reshaped=dict(sorted(reshaped.items())),
        missing=tuple(sorted(model.keys() - weights.keys() - fresh)),
        unexpected=tuple(sorted(weights.keys() - model.keys() - dropped)),
        misfits=dict(sorted(misfits.items())),
    )
    if report.complaints():
        raise ConversionError(report, where="pretrained weights")
    return unflatten_dict(flat, sep="/"), report


def _interpolate(path: str, array: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray | None, str]:
    """Tables of positions on a square grid: bicubic interpolation as PyTorch's, with half-pixel centres; RADIO's so
    that the corners meet."""
    of_radio = path == "patches/position_embed"
    if (of_radio or path == "absolute_pos_embed") and array.ndim == len(shape) == 4 and array.shape[3] == shape[3]:
        grid, sides = array[0], (array.shape[1], shape[1])
    elif path.endswith("/relative_position_bias") and array.ndim == len(shape) == 2 and array.shape[1] == shape[1]:
        sides = (round(array.shape[0] ** 0.5), round(shape[0] ** 0.5))
        grid = array.reshape(sides[0], sides[0], -1)
    else:
        return None, ""
    matrix = interpolation_matrix(*sides, "bicubic", align_corners=of_radio)
    resized = np.einsum("ph,qw,hwc->pqc", matrix, matrix, grid, optimize=True)
    return resized.reshape(shape), f"bicubic, {sides[0]}x{sides[0]} to {sides[1]}x{sides[1]}"
