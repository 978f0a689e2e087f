"""The JAX model as a backend of the evaluator and the predictor."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Int, UInt8

from oneformer_jax.checkpoints.load import load_checkpoint
from oneformer_jax.checkpoints.store import Description
from oneformer_jax.data.task_text import task_tokens
from oneformer_jax.evaluation.evaluator import BatchLogits
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.normalise import normalise
from oneformer_jax.models.predictions import Features, Predictions
from oneformer_jax.tasks import TASKS, Task
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
        self.config = config
        self._mesh = mesh or make_mesh(1)
        self.params = put_replicated(params, self._mesh)
        rows = task_tokens(config.task_pad_id, config.task_seq_len)
        self._task_rows = {task: rows[TASKS.index(task)] for task in TASKS}

        def encode(params: Any, images: UInt8[Array, "b h w 3"], sizes: Int[Array, "b 2"]) -> Features:
            return oneformer.encode(params, normalise(images, pixel_mean, pixel_std, sizes), config=config)

        def decode(params: Any, features: Features, tokens: Int[Array, "b n"]) -> Predictions:
            return oneformer.decode(params, features, tokens, config=config).final()

        self._encode, self._decode = jax.jit(encode), jax.jit(decode)

    @property
    def provider(self) -> str:
        """What computes."""
        return f"JAX {jax.__version__} on {self._mesh.devices.flat[0].platform}"

    def predict(
        self, images: UInt8[np.ndarray, "b h w 3"], sizes: Int[np.ndarray, "b 2"], tasks: Sequence[Task]
    ) -> dict[Task, BatchLogits]:
        """Class and mask logits per task; `sizes` are the (height, width) inside the padded images that hold image."""
        features = self._encode(self.params, *put_batch((images, sizes), self._mesh))
        results = {}
        for task in tasks:
            tokens = put_batch(np.tile(self._task_rows[task], (len(images), 1)), self._mesh)
            results[task] = jax.device_get(tuple(self._decode(self.params, features, tokens)))
        return results


def open_checkpoint(path: Path, mesh: Mesh | None, device_id: int) -> tuple[JaxBackend, Description]:
    """A checkpoint (see `load_checkpoint`) on the devices of `mesh`, else on the device `device_id`."""
    mesh = mesh or make_mesh((device_id,))
    checkpoint = load_checkpoint(path, device=mesh.local_devices[0])
    description = checkpoint.description
    mean, std = description.pixel_mean, description.pixel_std
    return JaxBackend(checkpoint.config, checkpoint.params, mean, std, mesh), description
