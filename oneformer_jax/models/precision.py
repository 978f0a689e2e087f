"""Mixed precision: a layer multiplies in the dtype of its kernel, all around it stays in float32.

So the dtypes of the parameters choose the precision, and no module has a switch: `with_kernels_in(params, bfloat16)`
makes every matrix product and convolution a product of bfloat16 numbers. Residual streams, normalisation, softmax,
sampling coordinates and what leaves the model for the losses are float32 (float64 where parameters are).

Axes: n, m and k any axes.
"""

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import KeyPath
from jax.typing import DTypeLike
from jaxtyping import Array, Float

KERNEL_DTYPES: dict[str, DTypeLike | None] = {"32": None, "bf16-mixed": jnp.bfloat16, "16-mixed": jnp.float16}
"""A spec's word for a precision -> what products are computed in; None: as parameters are."""

# The task MLP reads token ids, which have more digits than a half has; sampling offsets are coordinates; class logits
# are compared with each other.
ALWAYS_FULL = re.compile(r"^task_mlp/|/(sampling_offsets|class_embed)/")


def with_kernels_in(params: dict[str, Any], dtype: DTypeLike) -> dict[str, Any]:
    """`params` with the kernels of linear layers and convolutions in `dtype`; the others stay."""

    def cast(path: KeyPath, leaf: Array) -> Array:
        name = "/".join(str(key.key) for key in path)
        return leaf.astype(dtype) if name.endswith("/kernel") and not ALWAYS_FULL.search(name) else leaf

    return jax.tree_util.tree_map_with_path(cast, params)


def as_kernel(*arrays: Any, dtype: DTypeLike | None = None, inexact: bool = True) -> list[Any]:
    """Inputs, kernel and bias (or None) of a layer, all in the dtype of the kernel: the `promote_dtype` of Flax."""
    kernel = arrays[1]
    assert kernel is not None
    return [None if array is None else array.astype(kernel.dtype) for array in arrays]


def widened(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """`x` in float32, unless it is wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def wide_product(subscripts: str, a: Float[Array, "*m"], b: Float[Array, "*n"]) -> Float[Array, "*k"]:
    """`einsum` of two arrays of one dtype, not rounded to it. Its derivatives are products in that dtype again."""
    return jnp.einsum(subscripts, a, b) if _is_wide(a.dtype) else _wide_product(subscripts, a, b)


def rounded_exp(x: Float[Array, "*n"], dtype: DTypeLike) -> Float[Array, "*n"]:
    """exp(x) in `dtype`, which alone is kept for the derivative."""
    return jnp.exp(x) if _is_wide(dtype) else _rounded_exp(x, dtype)


def _is_wide(dtype: DTypeLike) -> bool:
    return bool(jnp.promote_types(dtype, jnp.float32) == dtype)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _wide_product(subscripts: str, a: Array, b: Array) -> Array:
    return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32)


def _wide_product_forward(subscripts: str, a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    return _wide_product(subscripts, a, b), (a, b)


def _wide_product_backward(subscripts: str, factors: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array]:
    _, pullback = jax.vjp(partial(jnp.einsum, subscripts), *factors)
    return pullback(cotangent.astype(factors[0].dtype))


_wide_product.defvjp(_wide_product_forward, _wide_product_backward)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _rounded_exp(x: Array, dtype: DTypeLike) -> Array:
    return jnp.exp(x).astype(dtype)


@_rounded_exp.defjvp
def _rounded_exp_jvp(dtype: DTypeLike, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = _rounded_exp(primals[0], dtype)
    return y, tangents[0].astype(dtype) * y
