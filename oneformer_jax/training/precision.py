"""Number formats of a training, and the scale of the loss that float16 needs.

The parameters, their updates and the losses are float32 in all of them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from oneformer_jax.models.oneformer import Params
from oneformer_jax.models.precision import with_kernels_in

KERNEL_DTYPES: dict[str, DTypeLike | None] = {"32": None, "bf16-mixed": jnp.bfloat16, "16-mixed": jnp.float16}
"""Value of `train.precision` -> what products are computed in (see `models.precision`); None: as parameters are."""

FIRST_SCALE = 2.0**16
STEPS_BEFORE_GROWTH = 2000


def in_kernel_dtype(params: Params, precision: str) -> Params:
    """`params` as the model computes with them; gradients of the result are of the dtypes of `params`."""
    dtype = KERNEL_DTYPES[precision]
    return params if dtype is None else with_kernels_in(params, dtype)


class LossScale(NamedTuple):
    """What the loss is multiplied by, lest its gradients vanish in float16 (Micikevicius et al. 2018, section 3.2).

    It doubles after 2000 updates without an overflow, and halves, down to 1, at each overflow, whose update is left
    out. `good_steps` counts the updates since it changed.
    """

    value: Float[Array, ""]
    good_steps: Int[Array, ""]

    def after(self, finite: Bool[Array, ""]) -> "LossScale":
        """The scale of the next step, where the gradients of this one were finite or not."""
        grows = self.good_steps + 1 >= STEPS_BEFORE_GROWTH
        value = jnp.where(finite, jnp.where(grows, 2 * self.value, self.value), jnp.maximum(self.value / 2, 1.0))
        return LossScale(value, jnp.where(finite & ~grows, self.good_steps + 1, 0))


def first_loss_scale(precision: str) -> LossScale | None:
    """None where gradients need no scale."""
    if precision != "16-mixed":
        return None
    return LossScale(jnp.asarray(FIRST_SCALE, jnp.float32), jnp.zeros((), jnp.int32))


def unscaled(gradients: Params, scale: LossScale | None) -> Params:
    """The gradients of the loss itself."""
    return gradients if scale is None else jax.tree.map(lambda gradient: gradient / scale.value, gradients)
