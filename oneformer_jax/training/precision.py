"""Number formats of a training. The parameters, their updates and the losses are float32 in all of them."""

from typing import Any

import jax.numpy as jnp

from oneformer_jax.models.precision import with_kernels_in

KERNEL_DTYPES: dict[str, Any] = {"32": None, "bf16-mixed": jnp.bfloat16, "16-mixed": jnp.float16}
"""Value of `train.precision` -> what products are computed in (see `models.precision`); None: as parameters are."""


def in_kernel_dtype(params: Any, precision: str) -> Any:
    """`params` as the model computes with them; gradients of the result are of the dtypes of `params`."""
    dtype = KERNEL_DTYPES[precision]
    return params if dtype is None else with_kernels_in(params, dtype)
