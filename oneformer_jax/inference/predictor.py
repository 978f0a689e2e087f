"""A trained model, ready to use: `load_model` and the JAX backend of the evaluator."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from oneformer_jax.data.task_text import task_tokens
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.normalise import normalise
from oneformer_jax.models.predictions import Features, Predictions
from oneformer_jax.spec.tasks import TASKS, Task


class JaxBackend:
    """Runs a model for the evaluator and the predictor: encodes a batch once, decodes it for each task.

    Compiled once a padded shape. `params` may be replaced between calls (validation during training).
    """

    def __init__(
        self,
        config: OneFormerConfig,
        params: Any,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
    ) -> None:
        self.params = params
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
        features = self._encode(self.params, jnp.asarray(images), jnp.asarray(sizes))
        results = {}
        for task in tasks:
            tokens = jnp.asarray(np.tile(self._task_rows[task], (len(images), 1)))
            results[task] = jax.device_get(tuple(self._decode(self.params, features, tokens)))
        return results


