"""Contrastive loss between object queries and text queries (Jain et al. 2023, section 3.3)."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

MAX_SCALE = 100.0


def contrastive_loss(
    object_queries: Float[Array, "b q d"], text_queries: Float[Array, "b q d"], logit_scale: Float[Array, ""]
) -> Float[Array, ""]:
    """Cross entropy of telling the image's text among the texts of the global batch, and the reverse.

    `logit_scale` is the logarithm of the inverse temperature, which stays below 100. The loss of one image is 0.
    """
    images, texts = _normalized(object_queries), _normalized(text_queries)
    scale = jnp.minimum(jnp.exp(logit_scale), MAX_SCALE)
    logits = scale * jnp.einsum("ix,jx->ij", images, texts, precision="highest")
    image_to_text = jnp.diagonal(jax.nn.log_softmax(logits, axis=1))
    text_to_image = jnp.diagonal(jax.nn.log_softmax(logits, axis=0))
    return -jnp.mean(image_to_text) - jnp.mean(text_to_image)


def _normalized(queries: Float[Array, "b q d"]) -> Float[Array, "b qd"]:
    flat = queries.astype(float).reshape(len(queries), -1)
    # The norm is at least 1e-12; the root is taken after the maximum so that its gradient is finite at 0.
    return flat * lax.rsqrt(jnp.maximum(jnp.sum(flat**2, axis=-1, keepdims=True), 1e-24))
