"""An exponential moving average of the parameters: what is validated and used in place of the last ones."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


def averaged(average: Any, params: Any, updates: Int[Array, ""], decay: float) -> Any:
    """The average after one more update, of trees like `params`.

    After n updates the decay is at most (1 + n) / (10 + n): the random parameters of the start are soon forgotten.
    """
    share = jnp.minimum(decay, (1.0 + updates) / (10.0 + updates))
    return jax.tree.map(lambda mean, new: mean + (1.0 - share) * (new - mean), average, params)
