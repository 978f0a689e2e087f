"""The results of a batch, decided on the devices, on their way to the host."""

import logging
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float32

from oneformer_jax.data.geometry import Geometry
from oneformer_jax.evaluation.backend import Asked
from oneformer_jax.models.predictions import Predictions
from oneformer_jax.postprocess.results import Result, not_finite
from oneformer_jax.predict.on_device.instance import found, shown
from oneformer_jax.predict.on_device.panoptic import owned, segmented
from oneformer_jax.predict.on_device.sampling import each_image, room_for, sampling_of, split_by_image
from oneformer_jax.predict.on_device.semantic import class_map
from oneformer_jax.tasks import Task

logger = logging.getLogger(__name__)


@lru_cache(maxsize=64)
def program(task: Task, mesh: Mesh, count: int) -> Any:
    """The rule of a task for a batch that the devices of `mesh` share: a function of class logits, mask logits,
    `Sampling` and, but for semantic, one array more. Of instances it takes the `count` most probable pairs."""
    if task == "instance":
        return each_image(partial(found, count=max(count, 1)), mesh)
    return each_image(class_map if task == "semantic" else owned, mesh)


@jax.jit
def are_finite(class_logits: Float32[Array, "b q k1"]) -> Bool[Array, " b"]:
    """Of each image."""
    return jnp.isfinite(class_logits).all(axis=(1, 2))


def rule_inputs(geometries: Sequence[Geometry], logits: tuple[int, ...], asked: Asked) -> dict[Task, tuple[Any, ...]]:
    """What the rules take beside logits of this (height, width), in NumPy."""
    count, sampling = len(geometries), sampling_of(geometries, logits)
    things = np.tile(asked.is_thing, (count, 1))
    least_score = np.full(count, asked.thresholds.object_mask_threshold, np.float32)
    return {"semantic": (sampling,), "instance": (sampling, things), "panoptic": (sampling, least_score)}


class Decided:
    """What the rules have found for a batch; it is fetched once, by whoever asks first."""

    def __init__(
        self,
        predictions: Mapping[Task, Predictions],
        geometries: Sequence[Geometry],
        asked: Asked,
        mesh: Mesh,
    ) -> None:
        """Starts the devices and does not wait for them."""
        self._sizes = [geometry.original for geometry in geometries]
        self._asked, self._lock = asked, threading.Lock()
        self._arrays: dict[Task, Any] = {}
        self._finite: dict[Task, Any] = {task: are_finite(logits) for task, (logits, _) in predictions.items()}
        self._words: Any = None  # of all masks, in case that there is no room for what changes in them
        self._is_fetched = False
        _, any_masks = next(iter(predictions.values()))
        inputs = rule_inputs(geometries, any_masks.shape[2:], asked)
        inputs = jax.device_put({task: inputs[task] for task in predictions}, split_by_image(mesh))
        for task, logits in predictions.items():
            self._arrays[task] = program(task, mesh, asked.thresholds.test_topk_per_image)(*logits, *inputs[task])
        if "instance" in self._arrays:
            self._arrays["instance"], self._words = self._arrays["instance"]

    def result(self, row: int) -> Result:
        """Of one image. Waits for the devices. Raises OneFormerError where its class logits are not finite."""
        arrays, size = self._fetched(), self._sizes[row]
        results: dict[str, Any] = {}
        for task, of_batch in arrays.items():
            if not self._finite[task][row]:
                raise not_finite()
            of_image = jax.tree.map(lambda x: x[row], of_batch)
            if task == "semantic":
                results[task] = of_image[: size[0], : size[1]].copy()
            elif task == "panoptic":
                results[task] = segmented(
                    of_image, size, self._asked.is_thing, self._asked.thresholds.overlap_threshold
                )
            elif self._asked.thresholds.test_topk_per_image:
                words = None if self._words is None else self._words[row]
                results[task] = shown(of_image, words, room_for(self._sizes), size)
            else:
                results[task] = ()
        return Result(**results)

    def _fetched(self) -> dict[Task, Any]:
        with self._lock:
            if not self._is_fetched:
                self._arrays, self._finite = jax.device_get((self._arrays, self._finite))
                instances = self._arrays.get("instance")
                if instances is not None and not instances.changes.are_all:
                    logger.info("masks with more than a change in every column: all their pixels leave the device")
                    self._words = jax.device_get(self._words)
                else:
                    self._words = None
                self._is_fetched = True
            return self._arrays
