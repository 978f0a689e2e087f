"""JAX in float64 beside ONNX Runtime, before a file may be used: logits, masks, and the label maps they give."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8
from pycocotools import mask as coco_mask

from converters.onnx.settings import Ending
from converters.onnx.trace import logits
from oneformer_jax.data.geometry import Geometry, letterbox, resize_and_pad
from oneformer_jax.evaluation.backend import BatchLogits
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.postprocess.results import Result, finished_result, semantic_map
from oneformer_jax.predict.exported import ExportedBackend, normalised
from oneformer_jax.predict.metadata import Metadata
from oneformer_jax.tasks import TASKS, Task

TOLERANCE = 1e-3
"""Of an entry, relative to the largest one of its tensor."""
REQUIRED = 0.999
"""The share of entries within the tolerance, and of pixels with the same label."""

Forward = Callable[[Float32[np.ndarray, "b 3 h w"], Float32[np.ndarray, "b n"]], BatchLogits]


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

    @property
    def failures(self) -> list[str]:
        """Why the file must not be used; empty where it may."""
        return [
            f"{100 * share:.2f} % of {what} agree, not {100 * REQUIRED:.1f} %"
            for what, share in (
                *((f"the entries of {name}", difference.within) for name, difference in self.differences.items()),
                *((f"the labels of {name} images", share) for name, share in self.agreement.items()),
            )
            if not share >= REQUIRED  # true also of a share that is not a number
        ]

    def to_json(self) -> dict[str, Any]:
        """For the report file."""
        return {
            "images": self.images,
            "tolerance": TOLERANCE,
            "required": REQUIRED,
            "differences": {name: vars(difference) for name, difference in self.differences.items()},
            "label_agreement": self.agreement,
            "passed": not self.failures,
        }


def jax_forward(params: Any, config: OneFormerConfig) -> Forward:
    """The model itself in float64, with the inputs and outputs of an exported graph.

    Rounding flips bits of the attention masks, and one bit can move what a query predicts by more than the tolerance:
    two float32 runtimes that are both right may disagree. A reference in float64 adds no flips of its own.
    """

    def widened(tree: Any) -> Any:
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)

    jitted = jax.jit(partial(logits, config=config))
    with jax.enable_x64(True):
        exact = widened(params)

    def run(*inputs: np.ndarray) -> BatchLogits:
        with jax.enable_x64(True):
            class_logits, mask_logits = jitted(exact, *widened(inputs))
            return np.asarray(class_logits, np.float32), np.asarray(mask_logits, np.float32)

    return run


def compare(reference: Forward, model: ExportedBackend, pictures: Sequence[UInt8[np.ndarray, "_h _w 3"]]) -> Parity:
    """Runs both on two batches of noise and on `pictures`, each with a task in turn.

    A graph of any batch size takes the noise as two images at once, a static one always as many as it must.
    """
    metadata = model.metadata
    smallest, largest = model.batch_sizes
    together = largest or 2
    noise = np.random.default_rng(0).normal(size=(2 * together, 3, *metadata.image_size)).astype(np.float32)
    batches: list[tuple[str, np.ndarray, Any]] = [("random", half, ...) for half in np.split(noise, 2)]
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
        within = float(np.mean(error <= TOLERANCE * scale))
        differences[name] = Difference(float(error.max()), float(error.mean()), scale, within)
    return Parity({"random": len(noise), "real": len(pictures)}, differences, _shares(equal))


def compare_labels(
    reference: Forward,
    session: Any,
    metadata: Metadata,
    ending: Ending,
    pictures: Sequence[UInt8[np.ndarray, "_h _w 3"]],
) -> Parity:
    """The label maps of a graph with post-processing beside those of JAX and the NumPy rules, at the network's size.

    Pictures are letterboxed; their padding is image to both. Instances are painted over each other, best on top.
    """
    noise = np.random.default_rng(0).integers(0, 256, (1, *metadata.image_size, 3), dtype=np.uint8)
    batches = [("random", noise)]
    for picture in pictures:
        batches.append(("real", resize_and_pad(picture, letterbox(picture.shape[:2], metadata.image_size))[None]))
    equal: dict[str, list[np.ndarray]] = {"random": [], "real": []}
    count = max(metadata.batch_size, 1)
    sizes, tokens = np.tile(metadata.image_size, (count, 1)), np.tile(metadata.tokens_of(ending.task), (count, 1))
    whole = letterbox(metadata.image_size, metadata.image_size)
    for kind, images in batches:
        images = np.repeat(images, count, axis=0)
        found = session.run(None, {"images": images})
        classes, masks = reference(normalised(images, sizes, metadata), tokens)
        task = ending.postprocess
        expected = finished_result({task: (classes[0], masks[0])}, whole, metadata.is_thing, ending.thresholds)
        equal[kind].append((_painted_result(expected, whole) == _painted(task, found)).ravel())
    return Parity({"random": 1, "real": len(pictures)}, {}, _shares(equal))


def _shares(equal: dict[str, list[np.ndarray]]) -> dict[str, float]:
    """Of pixels that are equal, for each kind of images that there are."""
    return {kind: float(np.concatenate(parts).mean()) for kind, parts in equal.items() if parts}


def _painted_result(result: Result, whole: Geometry) -> np.ndarray:
    """A finished result as a map of class + 1, 0 where there is none."""
    if result.semantic is not None:
        return result.semantic.astype(int) + 1
    painted = np.zeros(whole.original, int)
    for instance in reversed(result.instance or ()):
        painted[coco_mask.decode(instance.mask) > 0] = instance.category + 1
    if result.panoptic is not None:
        for segment in result.panoptic.segments:
            painted[result.panoptic.ids == segment.id] = segment.category + 1
    return painted


def _painted(task: Task, outputs: Sequence[np.ndarray]) -> np.ndarray:
    """The same of the first image of a graph's outputs."""
    if task == "semantic":
        return outputs[0][0].astype(int) + 1
    first, second, third = (output[0] for output in outputs)
    if task == "panoptic":
        return np.concatenate([[-1], second])[first] + 1
    painted = np.zeros(third.shape[1:], int)
    for index in np.argsort(second, kind="stable"):
        if second[index] > 0:
            painted[third[index]] = first[index] + 1
    return painted


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
