"""Cross entropy of the classes of all queries."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def class_loss(
    class_logits: Float[Array, "l b q k1"],
    target_class: Int[Array, "l b q"],
    no_object_weight: float,
    total_weight: Float[Array, ""],
) -> Float[Array, " l"]:
    """Weighted sum over the queries of the batch over `total_weight`, layer by layer; no-object, the last class,
    weighs less."""
    log_probability = jax.nn.log_softmax(class_logits.astype(float), axis=-1)
    likelihood = jnp.take_along_axis(log_probability, target_class[..., None], axis=-1)[..., 0]
    weights = jnp.where(target_class == class_logits.shape[-1] - 1, no_object_weight, 1.0)
    return -jnp.sum(weights * likelihood, axis=(1, 2)) / total_weight
