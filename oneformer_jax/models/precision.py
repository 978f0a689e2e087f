"""Mixed precision: a layer multiplies in the dtype of its kernel, all around it stays in float32.

So the dtypes of the parameters choose the precision, and no module has a switch: `with_kernels_in(params, bfloat16)`
makes every matrix product and convolution a product of bfloat16 numbers. Residual streams, normalisation, softmax,
sampling coordinates and what leaves the model for the losses are float32 (float64 where parameters are).

What learns has `learning_in(params, bfloat16)`: a kernel that is multiplied in halves, beside the one that it was
rounded from, whose gradient is a sum in float32 over all rows and all devices.

Axes: n, m and k any axes, c channels in, d channels out.
"""

import re
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jax.tree_util import KeyPath
from jax.typing import DTypeLike
from jaxtyping import Array, Float

Parameter = Array | np.ndarray
"""NumPy where nothing is traced."""

KERNEL_DTYPES: dict[str, DTypeLike | None] = {"32": None, "bf16-mixed": jnp.bfloat16, "16-mixed": jnp.float16}
"""A spec's word for a precision -> what products are computed in; None: as parameters are."""

# The task MLP reads token ids, which have more digits than a half has; sampling offsets are coordinates; class logits
# are compared with each other.
ALWAYS_FULL = re.compile(r"^task_mlp/|/(sampling_offsets|class_embed)/")


LEARNED = "learned"
"""The collection in which a module finds the kernels that those of its parameters were rounded from."""


class Kernel(NamedTuple):
    """A kernel to multiply with, and the `learned` one that it is the rounding of: one of its shape, or copies of it
    along a leading axis, each of which learns from an equal share of the leading axis of what is multiplied."""

    rounded: Array
    learned: Array


def with_kernels_in(params: dict[str, Any], dtype: DTypeLike) -> dict[str, Any]:
    """`params` with the kernels of linear layers and convolutions in `dtype`; the others stay."""

    def cast(path: KeyPath, leaf: Array) -> Array:
        name = "/".join(str(key.key) for key in path)
        return leaf.astype(dtype) if name.endswith("/kernel") and not ALWAYS_FULL.search(name) else leaf

    return jax.tree_util.tree_map_with_path(cast, params)


def learning_in(params: dict[str, Any], dtype: DTypeLike, copies: Sharding | None = None) -> dict[str, Any]:
    """`with_kernels_in`, where each kernel is a `Kernel`. All are rounded before one is used, so that a GPU rounds
    many small ones in one kernel. `copies` places a copy of each learned kernel on every device."""
    leaves, structure = jax.tree.flatten(params)
    cast = jax.tree.leaves(with_kernels_in(params, dtype))
    numbers = [i for i, (leaf, new) in enumerate(zip(leaves, cast, strict=True)) if new.dtype != leaf.dtype]
    for i, rounded in zip(numbers, _together([cast[i] for i in numbers]), strict=True):
        leaves[i] = Kernel(rounded, leaves[i] if copies is None else _copied(leaves[i], copies))
    return jax.tree.unflatten(structure, leaves)


@jax.custom_jvp
def _together(arrays: list[Array]) -> list[Array]:
    """All of them before one is used. The barrier's own derivative would wait for all gradients, too."""
    return jax.lax.optimization_barrier(arrays)


@_together.defjvp
def _together_jvp(primals: tuple[list[Array]], tangents: tuple[list[Array]]) -> tuple[list[Array], list[Array]]:
    return _together(*primals), tangents[0]


def _copied(kernel: Array, copies: Sharding) -> Array:
    """One for each device. The gradient of all is the sum over devices of what each has found."""
    if kernel.ndim != 2:
        return kernel
    copied = jnp.broadcast_to(kernel[None], (copies.num_devices, *kernel.shape))
    return jax.lax.with_sharding_constraint(copied, copies)


def as_variables(params: dict[str, Any]) -> dict[str, Any]:
    """What a Flax module is applied to: `params`, and where they have a `Kernel`, the learned ones beside them."""

    rounded = jax.tree.map(lambda leaf: leaf.rounded if _is_kernel(leaf) else leaf, params, is_leaf=_is_kernel)
    learned = _kernels_alone(params)
    return {"params": rounded} | ({LEARNED: learned} if learned else {})


def _kernels_alone(params: dict[str, Any]) -> dict[str, Any]:
    """The learned ones of `params`, by their names."""
    found: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Kernel):
            found[name] = value.learned
        elif isinstance(value, dict) and (inner := _kernels_alone(value)):
            found[name] = inner
    return found


def _is_kernel(leaf: Any) -> bool:
    return isinstance(leaf, Kernel)


def learned_kernel(module: nn.Module) -> Array | None:
    """The one that the kernel of a module was rounded from, where that learns."""
    return module.get_variable(LEARNED, "kernel")


def product(
    x: Float[Array, "*n c"], kernel: Float[Parameter, "c d"], learned: Array | None = None
) -> Float[Array, "*n d"]:
    """`x @ kernel`, of one dtype. With the `learned` kernel, of which `kernel` is the rounding (see `Kernel`), that has
    the gradient, which is not rounded to the dtype of its factors before it is summed over devices."""
    return x @ kernel if learned is None else _product(learned.dtype, learned.shape[:-2], x, kernel, learned)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(dtype: DTypeLike, copies: tuple[int, ...], x: Array, kernel: Array, learned: Array) -> Array:
    return x @ kernel


def _product_forward(dtype: DTypeLike, copies: tuple[int, ...], x: Array, kernel: Array, learned: Array) -> Any:
    return x @ kernel, (x, kernel)


def _product_backward(
    dtype: DTypeLike, copies: tuple[int, ...], factors: tuple[Array, Array], cotangent: Array
) -> tuple[Array, None, Array]:
    x, kernel = factors
    of_x = cotangent @ kernel.T
    if not copies:
        rows = tuple(range(x.ndim - 1))
        return of_x, None, jnp.tensordot(x, cotangent, axes=(rows, rows), preferred_element_type=dtype)
    (count,) = copies
    shares = count if len(x) % count == 0 else 1
    x, cotangent = (a.reshape(shares, -1, a.shape[-1]) for a in (x, cotangent))
    of_learned = jnp.einsum("gnc,gnd->gcd", x, cotangent, preferred_element_type=dtype)
    if shares < count:
        of_learned = jnp.pad(of_learned, ((0, count - 1), (0, 0), (0, 0)))
    # Together, or XLA would put off the products for the kernels, and with them the time at which they can be reduced.
    of_x, of_learned = jax.lax.optimization_barrier((of_x, of_learned))
    return of_x, None, of_learned


_product.defvjp(_product_forward, _product_backward)


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
