"""What a training minimises: matching costs and losses, as one argument of the training step.

Axes: b images, q queries, t rows of the segment table, l supervised layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float, Int, Key, PyTree

from oneformer_jax.data.batch import Batch
from oneformer_jax.losses.assignment import Pairs
from oneformer_jax.losses.config import CriterionConfig
from oneformer_jax.losses.criterion import Normalisers, criterion, normalisers
from oneformer_jax.losses.matching import matching_costs
from oneformer_jax.models.predictions import TrainingOutputs


@runtime_checkable
class Objective(Protocol):
    """All three functions are traced by `jax.jit`: they must be pure. Random draws come from `key`, which belongs to
    the step, and should depend on the sample (`batch.sample`), not on its place in the batch.

    Between `costs` and `loss` the host gives each segment to a query of each layer, at the least cost
    (`losses.assignment`).
    """

    def normalisers(self, segment_classes: Sequence[Int[Array, "_ t"]], num_queries: int) -> PyTree:
        """Numbers that the losses of one update share, from the segment tables of all its batches."""

    def costs(self, outputs: TrainingOutputs, batch: Batch, key: Key[Array, ""]) -> Float[Array, "l b q t"]:
        """The cost of every query for every segment in each layer that takes part; no gradient flows back."""

    def loss(
        self, outputs: TrainingOutputs, batch: Batch, pairs: Pairs, normalisers: PyTree, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """What this batch adds to the loss of the update, and its parts by name; of a part with one value a layer the
        last is reported."""


@dataclass(frozen=True)
class OneFormerObjective:
    """OneFormer's own (Jain et al. 2023, section 3): classes, masks, and the contrast of queries and texts."""

    config: CriterionConfig = field(default_factory=CriterionConfig)

    def normalisers(self, segment_classes: Sequence[Int[Array, "_ t"]], num_queries: int) -> Normalisers:
        return normalisers(segment_classes, num_queries, self.config.no_object_weight)

    def costs(self, outputs: TrainingOutputs, batch: Batch, key: Key[Array, ""]) -> Float[Array, "l b q t"]:
        return matching_costs(outputs.layers, batch, key, self.config)

    def loss(
        self, outputs: TrainingOutputs, batch: Batch, pairs: Pairs, normalisers: Normalisers, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        return criterion(outputs, batch, pairs, normalisers, key, self.config)
