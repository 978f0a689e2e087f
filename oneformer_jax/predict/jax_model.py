"""A trained model, ready to use: `load_model` and the JAX backend of the evaluator."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Shaped, UInt8

from oneformer_jax.app.settings.evaluation import evaluation_policy
from oneformer_jax.app.spec import Spec
from oneformer_jax.checkpoints.store import (
    Description,
    find_checkpoint,
    load_description,
    load_params,
    shapes_of,
)
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.geometry import Geometry
from oneformer_jax.data.task_text import task_tokens
from oneformer_jax.errors import CheckpointError
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.normalise import normalise
from oneformer_jax.models.predictions import Features, Predictions
from oneformer_jax.postprocess.result import Result
from oneformer_jax.postprocess.thresholds import Thresholds
from oneformer_jax.predict.batch import predict_batch
from oneformer_jax.tasks import TASKS, Task, task_of
from oneformer_jax.training.sharding import make_mesh, put_batch, put_replicated


class JaxBackend:
    """Runs a model for the evaluator and the predictor: encodes a batch once, decodes it for each task.

    Compiled once a padded shape. The devices of `mesh`, by default the first one, share the images of a batch evenly.
    `params` may be replaced between calls (validation during training).
    """

    def __init__(
        self,
        config: OneFormerConfig,
        params: Any,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
        mesh: Mesh | None = None,
    ) -> None:
        self._mesh = mesh or make_mesh(1)
        self.params = put_replicated(params, self._mesh)
        rows = task_tokens(config.task_pad_id, config.task_seq_len)
        self._task_rows = {task: rows[TASKS.index(task)] for task in TASKS}

        def encode(params: Any, images: UInt8[Array, "b h w 3"], sizes: Int[Array, "b 2"]) -> Features:
            return oneformer.encode(params, normalise(images, pixel_mean, pixel_std, sizes), config=config)

        def decode(params: Any, features: Features, tokens: Int[Array, "b n"]) -> Predictions:
            return oneformer.decode(params, features, tokens, config=config).final()

        self._encode, self._decode = jax.jit(encode), jax.jit(decode)

    def predict(
        self, images: UInt8[np.ndarray, "b h w 3"], sizes: Int[np.ndarray, "b 2"], tasks: Sequence[Task]
    ) -> dict[Task, tuple[Float[np.ndarray, "b q k1"], Float[np.ndarray, "b q h4 w4"]]]:
        """Class and mask logits per task; `sizes` are the (height, width) inside the padded images that hold image."""
        features = self._encode(self.params, *put_batch((images, sizes), self._mesh))
        results = {}
        for task in tasks:
            tokens = put_batch(np.tile(self._task_rows[task], (len(images), 1)), self._mesh)
            results[task] = jax.device_get(tuple(self._decode(self.params, features, tokens)))
        return results


@dataclass(frozen=True)
class LoadedModel:
    """A checkpoint in memory. `params` is a plain nested dictionary of arrays for `models.oneformer`'s functions."""

    config: OneFormerConfig
    params: Any
    categories: Categories
    description: Description
    mesh: Mesh | None = None

    @property
    def num_classes(self) -> int:
        return self.config.num_classes

    @cached_property
    def backend(self) -> JaxBackend:
        """The evaluator's view of this model."""
        mean, std = self.description.pixel_mean, self.description.pixel_std
        return JaxBackend(self.config, self.params, mean, std, self.mesh)

    @cached_property
    def _spec(self) -> Spec:
        return Spec.model_validate(self.description.spec)

    @cached_property
    def _forward(self) -> Any:
        def forward(params: Any, images: Any, tokens: Any) -> Predictions:
            features = oneformer.encode(params, images, config=self.config)
            return oneformer.decode(params, features, tokens, config=self.config).final()

        return jax.jit(forward)

    def forward(self, images: Float[Any, "b h w 3"], task_tokens: Shaped[Any, "b n"]) -> Predictions:
        """Raw logits of normalised float32 images, H and W multiples of 32, and task token rows."""
        return self._forward(self.params, jnp.asarray(images), jnp.asarray(task_tokens))

    def predict(self, image: UInt8[np.ndarray, "h w 3"], task: Task | str) -> Result:
        """The finished result for one RGB picture, at its own size.

        semantic: class indices (H, W); instance: instances, best first; panoptic: segment ids (H, W) with segments.
        Geometry and thresholds are those of the spec that the model was trained with. Raises ValueError: unknown task.
        """
        test = self._spec.model.test
        geometry = evaluation_policy(self._spec)(image.shape[:2])
        thresholds = Thresholds(test.object_mask_threshold, test.overlap_threshold, test.test_topk_per_image)
        return self.predict_batch([image], task_of(task), [geometry], thresholds)[0]

    def predict_batch(
        self,
        images: Sequence[UInt8[np.ndarray, "_h _w 3"]],
        task: Task,
        geometries: Sequence[Geometry],
        thresholds: Thresholds,
    ) -> list[Result]:
        """`predict` for pictures whose geometries pad them to one common size."""
        is_thing = np.zeros(self.num_classes, bool)
        is_thing[: len(self.categories)] = self.categories.is_thing
        return predict_batch(self.backend, images, task, geometries, is_thing, thresholds)


def load_model(path: Path | str, mesh: Mesh | None = None) -> LoadedModel:
    """Opens a checkpoint: a step folder, or a run folder (its best checkpoint, else its latest).

    Its backend runs on the devices of `mesh`, by default on the first one.

    Raises CheckpointError: no checkpoint there, a damaged one, or a backbone alone.
    """
    step_dir = find_checkpoint(Path(path))
    description = load_description(step_dir)
    needed = set(description.absent) - set(oneformer.TRAINING_ONLY)
    if needed:
        raise CheckpointError(
            f"holds no whole model: {', '.join(sorted(needed))} missing",
            where=str(step_dir),
            hint="a backbone is for training: train.pretrained_backbone",
        )
    mesh = mesh or make_mesh(1)
    with jax.default_device(mesh.local_devices[0]):
        params = load_params(step_dir, shapes_of(description))
    return LoadedModel(description.model, params, description.categories, description, mesh)
