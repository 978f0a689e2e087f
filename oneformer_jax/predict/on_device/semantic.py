"""The class of every pixel, decided on the device: that of the largest sum of votes (see `postprocess.semantic`).

Sums are of float32, so where two of them agree within its rounding, either class may win.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Shaped

from oneformer_jax.predict.on_device.sampling import Mix, Sampling, each_strip, mixed


def class_map(
    class_logits: Float32[Array, "q k1"], mask_logits: Float32[Array, "q h w"], sampling: Sampling
) -> Shaped[Array, "y x"]:
    """Class indices of one image, in the smallest unsigned integer type that holds K classes."""
    votes = jax.nn.softmax(class_logits, axis=-1)[:, :-1]
    dtype = np.min_scalar_type(votes.shape[1] - 1)

    def of_strip(rows: Mix) -> Shaped[Array, "y x"]:
        masks = jax.nn.sigmoid(mixed(mask_logits, rows, sampling.columns))
        sums = jnp.einsum("qk,qyx->kyx", votes, masks, precision=jax.lax.Precision.HIGHEST)
        return jnp.argmax(sums, axis=0).astype(dtype)

    strips = each_strip(of_strip, sampling.rows)
    return strips.reshape(-1, strips.shape[-1])
