"""Two formulations of a model side by side: logits, masks, and the label maps they give. Free of JAX."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, UInt8

from oneformer_jax.data.geometry import letterbox, resize_and_pad
from oneformer_jax.evaluation.backend import BatchLogits
from oneformer_jax.postprocess.results import semantic_map
from oneformer_jax.predict.exported import ExportedBackend, normalised
from oneformer_jax.predict.metadata import INPUTS, Metadata, Postprocess
from oneformer_jax.tasks import TASKS

Forward = Callable[[Float32[np.ndarray, "b 3 h w"], Float32[np.ndarray, "b n"]], BatchLogits]
Results = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
"""Outputs by their names, of inputs by theirs."""


@dataclass(frozen=True)
class Bounds:
    """`tolerance` of an entry, relative to the largest one of its tensor; `required` is the share of entries within it,
    and of pixels with the same label."""

    tolerance: float = 1e-3
    required: float = 0.999


@dataclass
class Difference:
    """Of one output over all images: `within` is the share of its entries inside the tolerance."""

    largest: float
    mean: float
    scale: float
    within: float


@dataclass
class Parity:
    """The comparison. `agreement` is the share of pixels with the same label on each kind of images."""

    images: dict[str, int]
    differences: dict[str, Difference]
    agreement: dict[str, float]
    bounds: Bounds = Bounds()

    @property
    def failures(self) -> list[str]:
        """Why the file must not be used; empty where it may."""
        return [
            f"{100 * share:.2f} % of {what} agree, not {100 * self.bounds.required:.1f} %"
            for what, share in (
                *((f"the entries of {name}", difference.within) for name, difference in self.differences.items()),
                *((f"the labels of {name} images", share) for name, share in self.agreement.items()),
            )
            if not share >= self.bounds.required  # true also of a share that is not a number
        ]

    def to_json(self) -> dict[str, Any]:
        """For the report file."""
        return {
            "images": self.images,
            "tolerance": self.bounds.tolerance,
            "required": self.bounds.required,
            "differences": {name: vars(difference) for name, difference in self.differences.items()},
            "label_agreement": self.agreement,
            "passed": not self.failures,
        }


def compare(
    reference: Forward,
    model: ExportedBackend,
    pictures: Sequence[UInt8[np.ndarray, "_h _w 3"]],
    *,
    noise: Sequence[int],
    bounds: Bounds = Bounds(),
) -> Parity:
    """Runs both on batches of so many images of `noise` each, and on `pictures` one by one, with the tasks in turn.

    A model that takes larger batches alone gets those filled.
    """
    metadata, rng = model.metadata, np.random.default_rng(0)
    smallest, _ = model.batch_sizes
    batches: list[tuple[str, np.ndarray, Any]] = [
        ("random", rng.normal(size=(count, 3, *metadata.image_size)).astype(np.float32), ...) for count in noise
    ]
    batches += [("real", *_letterboxed(picture, metadata)) for picture in pictures]
    errors: dict[str, list[np.ndarray]] = {"pred_logits": [], "pred_masks": []}
    scales = dict.fromkeys(errors, 0.0)
    equal: dict[str, list[np.ndarray]] = {"random": [], "real": []}
    for index, (kind, images, inside) in enumerate(batches):
        task = TASKS[index % len(TASKS)]
        count = max(len(images), smallest)
        images = images[np.minimum(np.arange(count), len(images) - 1)]
        tokens = np.tile(metadata.tokens_of(task), (count, 1))
        expected, found = reference(images, tokens), model.run(images, tokens)
        for name, a, b in zip(errors, expected, found, strict=True):
            errors[name].append(np.abs(a - b).ravel())
            scales[name] = max(scales[name], float(np.abs(a).max()))
        equal[kind].append((_labels(expected, metadata) == _labels(found, metadata))[inside].ravel())
    differences = {}
    for name, parts in errors.items():
        error, scale = np.concatenate(parts), scales[name]
        within = float(np.mean(error <= bounds.tolerance * scale))
        differences[name] = Difference(float(error.max()), float(error.mean()), scale, within)
    return Parity({"random": sum(noise), "real": len(pictures)}, differences, shares(equal), bounds)


def shares(equal: dict[str, list[np.ndarray]]) -> dict[str, float]:
    """Of pixels that are equal, for each kind of images that there are."""
    return {kind: float(np.concatenate(parts).mean()) for kind, parts in equal.items() if parts}


def compare_results(
    reference: Results,
    model: Results,
    metadata: Metadata,
    pictures: Sequence[UInt8[np.ndarray, "_h _w 3"]],
    *,
    noise: Sequence[int],
    bounds: Bounds,
) -> Parity:
    """The label maps of two that post-process, on batches of so many images of `noise` each, and on `pictures`, of
    which a batch is as large as the smallest of `noise`. Padding is image to both."""
    rng = np.random.default_rng(0)
    size, smallest = metadata.image_size, min(noise)
    batches = [("random", rng.integers(0, 256, (count, *size, 3), np.uint8)) for count in noise]
    for picture in pictures:
        padded = resize_and_pad(picture, letterbox((picture.shape[0], picture.shape[1]), size))
        batches.append(("real", np.repeat(padded[None], smallest, axis=0)))
    equal: dict[str, list[np.ndarray]] = {"random": [], "real": []}
    for kind, images in batches:
        expected, found = (painted(metadata.postprocess, run({INPUTS[0]: images})) for run in (reference, model))
        equal[kind].append((expected == found).ravel())
    return Parity({"random": sum(noise), "real": len(pictures)}, {}, shares(equal), bounds)


def painted(kind: Postprocess, outputs: Mapping[str, np.ndarray]) -> Int[np.ndarray, "b h w"]:
    """What a graph with post-processing returns, as maps of class + 1, 0 where there is none. Instances are painted
    over each other, best on top."""
    if kind == "semantic":
        return outputs["classes"].astype(int) + 1
    labels, scores = outputs["labels"], outputs["scores"]
    if kind == "panoptic":
        return np.stack(
            [np.concatenate([[-1], names])[ids] + 1 for names, ids in zip(labels, outputs["segment_ids"], strict=True)]
        )
    maps = np.zeros((len(labels), *outputs["masks"].shape[2:]), int)
    for row, painting in enumerate(maps):
        for index in np.argsort(scores[row], kind="stable"):
            if scores[row, index] > 0:
                painting[outputs["masks"][row, index]] = labels[row, index] + 1
    return maps


def _letterboxed(
    picture: UInt8[np.ndarray, "h w 3"], metadata: Metadata
) -> tuple[Float32[np.ndarray, "1 3 hp wp"], tuple[Any, ...]]:
    """A picture as the model takes it, and the part of a label map that shows it."""
    geometry = letterbox((picture.shape[0], picture.shape[1]), metadata.image_size)
    height, width = geometry.resized
    sizes = np.array([geometry.resized], np.int32)
    return normalised(resize_and_pad(picture, geometry)[None], sizes, metadata), (0, slice(height), slice(width))


def _labels(logits: BatchLogits, metadata: Metadata) -> np.ndarray:
    """The semantic label map of each image, at the network's size."""
    size = metadata.image_size
    whole = letterbox(size, size)
    return np.stack([semantic_map(classes, masks, whole) for classes, masks in zip(*logits, strict=True)])
