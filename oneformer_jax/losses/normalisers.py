"""What the losses of an update are divided by, also when several batches make it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from oneformer_jax.data.batch import Batch

Array = Any  # np.ndarray on the host, jax.Array on the device


class Normalisers(NamedTuple):
    """What the sums over the batches of one update are divided by: then the losses of its batches add up to its loss.

    `masks` counts segments, `class_weight` sums the weights of the queries' classes. The contrastive loss tells the
    images of one batch apart: of its values over `batches` batches the mean is taken.
    """

    masks: Float[Array, ""]
    class_weight: Float[Array, ""]
    batches: Float[Array, ""]


def normalisers(batches: Sequence[Batch], num_queries: int, no_object_weight: float) -> Normalisers:
    """The normalisers of an update with these global batches, from their annotations alone."""
    segments = np.concatenate([(batch.segment_class >= 0).sum(axis=1) for batch in batches])
    matched = np.minimum(segments, num_queries).sum()  # each segment gets a query, while there are any
    without = len(segments) * num_queries - matched
    # The mean number of segments a device times the number of devices: what the original's processes agree on.
    numbers = max(segments.sum(), 1), matched + no_object_weight * without, len(batches)
    return Normalisers(*map(np.float32, numbers))
