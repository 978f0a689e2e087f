"""What the losses of an update are divided by, also when several batches make it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Float, Int

Array = Any  # np.ndarray on the host, jax.Array on the device


class Normalisers(NamedTuple):
    """What the sums over the batches of one update are divided by: then the losses of its batches add up to its loss.

    `masks` counts segments, `class_weight` sums the weights of the queries' classes. The contrastive loss tells the
    images of one batch apart: of its values over `batches` batches the mean is taken.
    """

    masks: Float[Array, ""]
    class_weight: Float[Array, ""]
    batches: Float[Array, ""]


def normalisers(segment_classes: Sequence[Int[Array, "b t"]], num_queries: int, no_object_weight: float) -> Normalisers:
    """The normalisers of an update with batches of these (global) segment tables."""
    segments = jnp.concatenate([jnp.sum(classes >= 0, axis=1) for classes in segment_classes])
    matched = jnp.sum(jnp.minimum(segments, num_queries))  # each segment gets a query, while there are any
    without = len(segments) * num_queries - matched
    # The mean number of segments a device times the number of devices: what the original's processes agree on.
    numbers = jnp.maximum(jnp.sum(segments), 1), matched + no_object_weight * without, len(segment_classes)
    return Normalisers(*(jnp.asarray(number, float) for number in numbers))
