"""Our points of a training step, dealt to Hugging Face's loss in place of its random ones."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import torch
from jaxtyping import Array, Float, Key

from oneformer_jax.data.batch import Batch
from oneformer_jax.losses import criterion, matching
from oneformer_jax.losses.matching import CriterionConfig
from oneformer_jax.losses.points import uniform_points


@dataclass
class DealtPoints:
    """`rand` stands in for `torch.rand` while Hugging Face computes the loss of a batch in the first step.

    It asks layer by layer, the output's first: once for each image, to match it, then for all matched pairs at once,
    first the points among which uncertain ones are sought, then those that stay random. `note_pairs` must be a forward
    hook of its matcher, which decides the order of the pairs.
    """

    batch: Batch
    seed: int
    layers: int
    config: CriterionConfig
    pairs: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dealt = self._deal()

    def rand(self, *shape: int, device: torch.device) -> torch.Tensor:
        points = next(self._dealt)
        assert points.shape == shape
        return torch.tensor(points, device=device)

    def note_pairs(self, _matcher: Any, _inputs: Any, indices: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Remembers image and segment of each pair."""
        self.pairs = [(image, int(target)) for image, (_, targets) in enumerate(indices) for target in targets]

    def are_used_up(self) -> bool:
        return next(self._dealt, None) is None

    def _deal(self) -> Iterator[Float[np.ndarray, "n p 2"]]:
        for layer in (self.layers - 1, *range(self.layers - 1)):
            for image in range(len(self.batch.sample)):
                yield self._matching(image)[layer][None]
            points = np.stack([self._loss(image, target, layer) for image, target in self.pairs])
            yield points[:, : self.config.num_oversampled]
            yield points[:, self.config.num_oversampled :]

    def _matching(self, image: int) -> Float[np.ndarray, "l p 2"]:
        return np.asarray(uniform_points(self._key(matching.STREAM, image), (self.layers, self.config.num_points)))

    def _loss(self, image: int, target: int, layer: int) -> Float[np.ndarray, "p 2"]:
        key = jax.random.fold_in(jax.random.fold_in(self._key(criterion.STREAM, image), target), layer)
        count = self.config.num_oversampled + self.config.num_points - self.config.num_uncertain
        return np.asarray(uniform_points(key, (count,)))

    def _key(self, stream: int, image: int) -> Key[Array, ""]:
        step = jax.random.fold_in(jax.random.key(self.seed), 0)
        return jax.random.fold_in(jax.random.fold_in(step, stream), self.batch.sample[image])
