"""The query that owns every pixel, decided on the device: that of the largest score times mask probability (see
`postprocess.panoptic`).

Products are compared by their logarithms, which reach from far outside of a mask to deep inside without a loss of
digits; where two agree within the rounding of float32, either query may win.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32, Shaped

from oneformer_jax.data.geometry import Size
from oneformer_jax.postprocess.panoptic import Owners
from oneformer_jax.postprocess.results import PanopticResult, segments_of_owners
from oneformer_jax.predict.on_device.sampling import Mix, Sampling, each_strip, mixed, within


class Owned(NamedTuple):
    """What leaves the device of an image; then its arrays are NumPy's. The best class of each query (K: no object) with
    its probability, and the fields of `Owners`."""

    labels: Int32[Array, "*b q"]
    scores: Float32[Array, "*b q"]
    owner: Shaped[Array, "*b y x"]
    won: Int32[Array, "*b q"]
    seen: Int32[Array, "*b q"]
    held: Int32[Array, "*b q"]


def owned(
    class_logits: Float32[Array, "q k1"],
    mask_logits: Float32[Array, "q h w"],
    sampling: Sampling,
    least_score: Float32[Array, ""],
) -> Owned:
    """Of one image. Queries of no object, or whose score is not above `least_score`, own nothing."""
    count, no_object = len(class_logits), class_logits.shape[1] - 1
    logarithms = jax.nn.log_softmax(class_logits, axis=-1)
    labels, score = jnp.argmax(class_logits, axis=-1), logarithms.max(axis=-1)
    scores = jax.nn.softmax(class_logits, axis=-1).max(axis=-1)
    kept = (labels != no_object) & (scores > least_score)
    queries = jnp.arange(count)[:, None, None]
    in_columns = within(sampling.columns)
    dtype = np.min_scalar_type(count)

    def of_strip(rows: Mix) -> tuple[Shaped[Array, "y x"], *tuple[Int32[Array, " q"], ...]]:
        logits = mixed(mask_logits, rows, sampling.columns)
        strength = jnp.where(kept[:, None, None], jax.nn.log_sigmoid(logits) + score[:, None, None], -jnp.inf)
        winner = jnp.argmax(strength, axis=0)
        inside = (within(rows)[:, None] & in_columns[None, :])[None] & kept[:, None, None]
        wins, holds = (queries == winner[None]) & inside, (logits >= 0) & inside
        sees = wins & holds
        owner = jnp.where(sees.any(axis=0), winner, count).astype(dtype)
        return owner, *(pixels.sum(axis=(1, 2), dtype=jnp.int32) for pixels in (wins, sees, holds))

    owner, *counts = each_strip(of_strip, sampling.rows)
    owner, counts = owner.reshape(-1, owner.shape[-1]), [of_strips.sum(axis=0) for of_strips in counts]
    return Owned(labels.astype(jnp.int32), scores, owner, *counts)


def segmented(owned: Owned, size: Size, is_thing: Bool[np.ndarray, " k"], overlap_threshold: float) -> PanopticResult:
    """The segments of one image of `size` (height, width), of the same arrays in NumPy."""
    labels, scores, owner, *counts = map(np.asarray, owned)
    owners = Owners(owner[: size[0], : size[1]], *(count.astype(np.int64) for count in counts))
    return segments_of_owners(owners, labels, scores, is_thing, overlap_threshold)
