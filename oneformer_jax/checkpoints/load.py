"""A whole model out of a checkpoint, for whoever works with its parameters."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Shaped

from oneformer_jax.checkpoints.description import Description
from oneformer_jax.checkpoints.read import find_checkpoint, load_description, load_params
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.errors import CheckpointError
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import Params
from oneformer_jax.models.predictions import Predictions


@dataclass(frozen=True)
class Checkpoint:
    """A model in memory. `params` is a plain nested dictionary of arrays for `models.oneformer`'s functions."""

    params: Params
    description: Description

    @property
    def config(self) -> OneFormerConfig:
        """The architecture."""
        return self.description.model

    @property
    def categories(self) -> Categories:
        """The classes that it was trained on."""
        return self.description.categories

    @cached_property
    def _forward(self) -> Any:
        def forward(params: Params, images: jax.Array, tokens: jax.Array) -> Predictions:
            features = oneformer.encode(params, images, config=self.config)
            return oneformer.predict(params, features, tokens, config=self.config)

        return jax.jit(forward)

    def forward(self, images: Float[Any, "b h w 3"], task_tokens: Shaped[Any, "b n"]) -> Predictions:
        """Raw logits of normalised float32 images, H and W multiples of 32, and task token rows."""
        return self._forward(self.params, jnp.asarray(images), jnp.asarray(task_tokens))


def load_checkpoint(path: Path | str, *, device: jax.Device | None = None) -> Checkpoint:
    """Reads a step folder, or a run folder (its best checkpoint, else its latest), onto a device, by default the first.

    Raises CheckpointError: no checkpoint there, a damaged one, or a backbone alone.
    """
    step_dir = find_checkpoint(Path(path))
    description = load_description(step_dir)
    needed = set(description.absent) - set(oneformer.TRAINING_ONLY)
    if needed:
        raise CheckpointError(
            f"does not contain a whole model: {', '.join(sorted(needed))} missing",
            where=str(step_dir),
            hint="to train from a backbone, use train.pretrained_backbone",
        )
    with jax.default_device(device or jax.local_devices()[0]):
        return Checkpoint(load_params(step_dir, description.shapes()), description)
