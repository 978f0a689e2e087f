"""Attention for GPUs: the kernels as an operation of `models.ops`, with its derivatives, split over devices like the
images.

Axes: b images, m windows or other groups of an image, q queries, k keys, t tokens that are both, n heads, d channels of
a head.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from oneformer_jax.models.gpu import attention_passes
from oneformer_jax.models.gpu.attention_problem import Cotangents, Inputs, Problem
from oneformer_jax.models.layers import Dropout
from oneformer_jax.models.ops import Blocked, Projected, float16_unit, normalised_sums
from oneformer_jax.models.remat import marked

WIDTHS = (16, 32, 64, 128)
"""Channels of a head that the kernels are made for. Others between the last two, as 72 and 80 of RADIO, are filled
up."""
DTYPES = ("float32", "bfloat16", "float16")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KernelAttention:
    """`ops.attend`, which says what the arguments are, in kernels that keep logits and weights out of memory.

    The images, which lead, are split over the devices of `mesh` where they can be. What the kernels are not made for is
    computed by `ops.normalised_sums`, and the log says so. With `interpret` they run on any device, slowly.
    """

    mesh: Mesh
    interpret: bool = False

    def __call__(
        self, projected: Projected, dropout: Dropout, scale: float, bias: Array | None, blocked: Blocked | None
    ) -> Array:
        arrays: tuple[Array, ...] = projected if isinstance(projected, tuple) else (projected,)
        width = arrays[0].shape[-1]
        if WIDTHS[-2] < width < WIDTHS[-1]:  # zeros, as further channels, change no product and no mean
            arrays = tuple(jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, WIDTHS[-1] - width)]) for x in arrays)
        reason = _obstacle(arrays[0].shape[-1], str(arrays[0].dtype), dropout)
        if reason:
            _tell(reason)
            return normalised_sums(projected, dropout, scale, bias, blocked)
        words, rate = (dropout.words(), dropout.rate) if dropout.is_on else (jnp.zeros(2, jnp.uint32), 0.0)
        numbers = None if blocked is None else jnp.asarray(blocked.astype(np.int8))
        call = _Call(self.mesh, scale, rate, self.interpret)
        return _attention(call, _Arguments(arrays, bias, numbers, words))[..., :width]


def _obstacle(width: int, dtype: str, dropout: Dropout) -> str:
    if width not in WIDTHS:
        return f"heads have {width} channels, not {', '.join(map(str, WIDTHS))}"
    if dtype not in DTYPES:
        return f"values are {dtype}"
    return "dropout drops everything" if dropout.is_on and dropout.rate == 1 else ""


@lru_cache(maxsize=64)
def _tell(reason: str) -> None:
    """Once for each reason."""
    logger.warning("attention keeps its logits in memory: %s, which the kernels for GPUs are not made for", reason)


class _Arguments(NamedTuple):
    """Those of `ops.attend` that are arrays: `projected` in a tuple, `blocked` int8, `words` of the key of dropout."""

    projected: tuple[Array, ...]
    bias: Array | None
    blocked: Array | None
    words: Array


@dataclass(frozen=True)
class _Call:
    """What is static about a call."""

    mesh: Mesh
    scale: float
    rate: float
    interpret: bool

    def axes(self, arguments: _Arguments) -> tuple[str, ...]:
        """Of the mesh, that the images are split over."""
        images = len(arguments.projected[0])
        return self.mesh.axis_names if self.mesh.size > 1 and images % self.mesh.size == 0 else ()

    def dealt(self, function: Callable, axes: tuple[str, ...], in_specs: Any, out_specs: Any) -> Callable:
        """The function, run on every device for its images: XLA would gather them all for a kernel."""
        if not axes:
            return function
        return jax.shard_map(function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

    def problem(self, arguments: _Arguments, axes: tuple[str, ...]) -> tuple[Problem, Inputs]:
        """What the kernels are given on a device: its groups are one axis, packed heads follow each other."""
        arrays, bias, blocked, words = arguments
        is_packed = len(arrays) == 1
        if is_packed:
            *lead, _, heads, width = arrays[0].shape
            arrays = (arrays[0].reshape(*lead, 3 * heads, width),) * 3
        query, key, value = (x.reshape(-1, *x.shape[-3:]) for x in arrays)
        groups, queries, heads, width = query.shape
        keys = key.shape[1]
        before = lax.axis_index(axes) * groups if axes else 0
        inputs = Inputs(
            query,
            key,
            value,
            bias,
            None if blocked is None else blocked.reshape(-1, queries, keys),
            jnp.concatenate([words, jnp.asarray(before, jnp.uint32)[None]]),
        )
        unit = float16_unit(keys) if value.dtype == jnp.float16 else 1.0
        sizes = groups, queries, keys, heads // 3 if is_packed else heads, width
        return Problem(*sizes, is_packed, self.scale, self.rate, unit, self.interpret), inputs


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(call: _Call, arguments: _Arguments) -> Array:
    return _forward(call, arguments)[0]


def _forward(call: _Call, arguments: _Arguments) -> tuple[Array, tuple[_Arguments, Array, Array]]:
    axes = call.axes(arguments)

    def means(arguments: _Arguments) -> tuple[Array, Array]:
        problem, inputs = call.problem(arguments, axes)
        means, normaliser = attention_passes.means(problem, inputs)
        lead = arguments.projected[0].shape[: -4 if problem.is_packed else -3]
        return means.reshape(*lead, *problem.shape[1:]), normaliser.reshape(*lead, *normaliser.shape[1:])

    by_image = PartitionSpec(axes)
    found = call.dealt(means, axes, (_specs(arguments, axes),), (by_image, by_image))(arguments)
    found = tuple(marked(x, "results") for x in found)
    return found[0], (arguments, *found)


def _backward(call: _Call, residuals: tuple[_Arguments, Array, Array], cotangent: Array) -> tuple[_Arguments]:
    arguments, *results = residuals
    axes = call.axes(arguments)

    def gradients(arguments: _Arguments, means: Array, normaliser: Array, cotangent: Array) -> Any:
        problem, inputs = call.problem(arguments, axes)
        means, cotangent = (x.reshape(problem.shape) for x in (means, cotangent))
        normaliser = normaliser.reshape(-1, *normaliser.shape[-2:])
        products = jnp.sum(means.astype(jnp.float32) * cotangent.astype(jnp.float32), axis=-1).swapaxes(1, 2)
        of_tokens, of_bias = attention_passes.gradients(problem, inputs, Cotangents(cotangent, normaliser, products))
        shaped = tuple(new.reshape(old.shape) for new, old in zip(of_tokens, arguments.projected, strict=True))
        return shaped, None if of_bias is None else of_bias[None]

    by_image = PartitionSpec(axes)
    specs = _specs(arguments, axes), by_image, by_image, by_image
    projected, of_bias = call.dealt(gradients, axes, specs, by_image)(arguments, *results, cotangent)
    bias = None if of_bias is None else jnp.sum(of_bias, axis=0)
    return (_Arguments._make((projected, bias, None, None)),)


_attention.defvjp(_forward, _backward)


def _specs(arguments: _Arguments, axes: tuple[str, ...]) -> Any:
    """How each of them is split."""
    by_image, whole = PartitionSpec(axes), PartitionSpec()
    bias, blocked = arguments.bias, arguments.blocked
    is_of_image = blocked is not None and len(blocked) == len(arguments.projected[0])
    of_blocked = by_image if is_of_image else whole
    return _Arguments._make((by_image, None if bias is None else whole, None if blocked is None else of_blocked, whole))
