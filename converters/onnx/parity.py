"""What a file is compared with before it may be used: the model in float64, and results of the NumPy rules."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from pycocotools import mask as coco_mask

from converters.onnx.settings import Ending
from converters.onnx.trace import logits
from oneformer_jax.data.geometry import Geometry, letterbox, resize_and_pad
from oneformer_jax.evaluation.backend import BatchLogits
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.postprocess.results import Result, finished_result
from oneformer_jax.predict.exported import normalised
from oneformer_jax.predict.metadata import Metadata
from oneformer_jax.predict.parity import Forward, Parity, painted, shares


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
        found = dict(zip(metadata.outputs, session.run(list(metadata.outputs), {"images": images}), strict=True))
        classes, masks = reference(normalised(images, sizes, metadata), tokens)
        task = ending.postprocess
        expected = finished_result({task: (classes[0], masks[0])}, whole, metadata.is_thing, ending.thresholds)
        equal[kind].append((_painted_result(expected, whole) == painted(task, found)[0]).ravel())
    return Parity({"random": 1, "real": len(pictures)}, {}, shares(equal))


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
