"""The operations that a platform or an exporter computes in its own way, and their formulations for CPU.

The model calls `attend`, `contract`, `resize`, `depthwise` and `deformable_attention` of this module. What they compute
is defined here; how, by the `Ops` in use: those of `OneFormerConfig.ops`, which `models.oneformer` puts in use while it
applies a module (`using`). So the formulation is part of the configuration, and with it of every trace and every
compiled program; other threads keep their own. Those for GPUs are in `models.gpu`.

Axes: b images, q queries, k keys, s pixels of all levels, n heads, d channels of a head, l levels, p points of a level,
h w pixels of a map, h2 w2 those of the resized one, c channels, r the side of a kernel, m any other leading axes, as
that of windows.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, SupportsInt

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from oneformer_jax.models.deformable_attention import Shapes, weighted_gathers
from oneformer_jax.models.depthwise import shifted_sums
from oneformer_jax.models.layers import Dropout
from oneformer_jax.models.precision import rounded_exp, wide_product, widened
from oneformer_jax.models.remat import marked

Method = Literal["bilinear", "bicubic"]
Projected = Array | tuple[Array, Array, Array]
Blocked = Array | np.ndarray
BICUBIC_A = -0.75  # PyTorch's; jax.image uses -0.5


def attend(
    projected: Float[Array, "b *m q 3 n d"]
    | tuple[Float[Array, "b *m q n d"], Float[Array, "b *m k n d"], Float[Array, "b *m k n d"]],
    dropout: Dropout,
    *,
    scale: float,
    bias: Float[Array, "n q k"] | None = None,
    blocked: Bool[Blocked, "#b *m q k"] | None = None,
) -> Float[Array, "b *m q n d"]:
    """Multi-head dot-product attention (Vaswani et al. 2017, section 3.2): means of the values, weighted by the softmax
    over keys of scale * query . key + bias.

    Args:
        projected: queries, keys and values, in one array where all are of the same tokens.
        dropout: drops weights, drawing a mask (b, *m, n, q, k).
        blocked: pairs that weigh nothing; no query may be blocked from all keys. NumPy: known before images are.

    Returns:
        The means, in the dtype of the values or float32, rounded to no less than that of the values.
    """
    return _in_use.get().attend(projected, dropout, scale, bias, blocked)


def contract(subscripts: str, a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """`einsum` over the channels, the last axis of both, not rounded to their dtype where that is below float32."""
    return _in_use.get().contract(subscripts, a, b)


def parts_of(count: int, logits: SupportsInt) -> int:
    """Into how many equal parts `count` of something are divided whose attention has so many `logits` (a symbol in an
    exported batch of any size), so that those of one part are not too many for the memory; the parts are computed one
    after the other."""
    most = _in_use.get().most_logits
    if most is None or count == 1:
        return 1
    wanted = -(-int(logits) // most)
    return next(parts for parts in range(1, count + 1) if count % parts == 0 and (parts >= wanted or parts == count))


def resize(x: Float[Array, "b h w c"], size: tuple[int, int], method: Method = "bilinear") -> Float[Array, "b h2 w2 c"]:
    """Maps `x` at `size`, half-pixel centres, edges repeated, no antialiasing: PyTorch's `align_corners=False`."""
    return _in_use.get().resize(x, size, method)


def depthwise(x: Float[Array, "b h w c"], kernel: Float[Array, "r r 1 c"]) -> Float[Array, "b h w c"]:
    """Each channel of `x` convolved with its own kernel, of an odd side; zeros around the borders keep the size."""
    return marked(_in_use.get().depthwise(x, kernel), "results")


def deformable_attention(
    value: Float[Array, "b s n d"],
    shapes: Shapes,
    locations: Float[Array, "b q n l p 2"],
    weights: Float[Array, "b q n l p"],
) -> Float[Array, "b q n*d"]:
    """Multi-scale deformable attention (Zhu et al. 2021, equation 3): samples every level of `value` at `locations`,
    bilinearly, and sums the samples of a query by `weights`.

    Args:
        value: levels flattened row by row and concatenated. Sums have the dtype of `weights`, which may be wider.
        shapes: static (height, width) of each level; the areas add up to `s`.
        locations: (x, y) as a fraction of the level: (0, 0) is the outer corner of the first pixel and (1, 1) that of
            the last one. Pixels outside a level count as zero (`grid_sample` with `align_corners=False`).
        weights: attention of each sample; they need not sum to one.

    Returns:
        The sums, channels of head 0 first.

    Raises:
        ValueError: `shapes` does not describe `value` or the level axis of `locations`.
    """
    if sum(h * w for h, w in shapes) != value.shape[1] or len(shapes) != locations.shape[3]:
        raise ValueError(f"levels {shapes} do not fit values {value.shape} and locations {locations.shape}")
    return marked(_in_use.get().deformable_attention(value, shapes, locations, weights), "results")


def heads_first(projected: Projected) -> tuple[Array, Array, Array]:
    """Queries, keys and values with heads before tokens: XLA's CPU products over strided heads are several times
    slower."""
    if isinstance(projected, tuple):
        q, k, v = (x.swapaxes(-3, -2) for x in projected)
    else:
        last = projected.ndim - 1
        q, k, v = projected.transpose(last - 2, *range(last - 3), last - 1, last - 3, last)
    return q, k, v


def normalised_sums(
    projected: Projected, dropout: Dropout, scale: float, bias: Array | None, blocked: Blocked | None
) -> Array:
    """`attend`, where the sums are normalised, not the weights, which are many times as large and are rounded to the
    dtype of the values."""
    q, k, v = heads_first(projected)
    logits = marked(wide_product("...qd,...kd->...qk", q * scale, k), "logits")
    if bias is not None:
        logits = logits + bias[(None,) * (logits.ndim - bias.ndim)]
    if blocked is not None:
        logits = jnp.where(blocked[..., None, :, :], jnp.finfo(logits.dtype).min, logits)
    shifted = logits - jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    is_narrow = v.dtype == jnp.float16
    if is_narrow:  # the gradient is divided by the sum of the weights, and must not vanish
        shifted = shifted - math.log(float16_unit(k.shape[-2]))
    weights = rounded_exp(shifted, v.dtype)
    kept = dropout(weights)
    sums = wide_product("...qk,...kd->...qd", kept, v) if is_narrow else widened(kept @ v)
    means = marked(sums, "results") / jnp.sum(weights, axis=-1, keepdims=True, dtype=logits.dtype)
    return means.swapaxes(-3, -2)


def float16_unit(keys: int) -> float:
    """A power of two: of so many keys, the 1 / keys of each is a normal number of float16 when multiplied by it."""
    return 2.0 ** max(0, keys.bit_length() - 14)


def matrix_resize(x: Array, size: tuple[int, int], method: Method) -> Array:
    """`resize` as products with constant matrices, which are exact for any pair of sizes: a resize along one axis is
    linear."""
    height, width = x.shape[1:3]
    if height != size[0]:
        x = jnp.einsum("ph,bhwc->bpwc", interpolation_matrix(height, size[0], method), x)
    if width != size[1]:
        x = jnp.einsum("qw,bpwc->bpqc", interpolation_matrix(width, size[1], method), x)
    return x


@dataclass(frozen=True)
class Ops:
    """A formulation of each operation, called with all its arguments by place. The defaults are fast on CPU and work
    everywhere. `most_logits` of an attention whose parts are independent are computed at once, None: all."""

    attend: Callable[[Projected, Dropout, float, Array | None, Blocked | None], Array] = normalised_sums
    contract: Callable[[str, Array, Array], Array] = wide_product
    resize: Callable[[Array, tuple[int, int], Method], Array] = matrix_resize
    deformable_attention: Callable[[Array, Shapes, Array, Array], Array] = weighted_gathers
    depthwise: Callable[[Array, Array], Array] = shifted_sums
    most_logits: int | None = None


CPU = Ops(most_logits=2**24)
_in_use = ContextVar("ops", default=CPU)


@contextmanager
def using(ops: Ops) -> Iterator[None]:
    """Within it, this thread's calls of the operations are computed by `ops`."""
    token = _in_use.set(ops)
    try:
        yield
    finally:
        _in_use.reset(token)


@lru_cache(maxsize=256)
def interpolation_matrix(
    source: int, target: int, method: Method = "bilinear", *, align_corners: bool = False
) -> Float[np.ndarray, "target source"]:
    """Weights (target, source) float32: row i mixes the source samples that make target sample i. With `align_corners`
    the first samples meet, and so do the last ones, not the edges."""
    if align_corners:
        centre = np.arange(target) * ((source - 1) / max(1, target - 1))
    else:
        centre = (np.arange(target) + 0.5) * source / target - 0.5
    if method == "bilinear":
        centre = centre.clip(min=0.0)
    base = np.floor(centre).astype(int)
    taps = (0, 1) if method == "bilinear" else (-1, 0, 1, 2)
    kernel = _triangle if method == "bilinear" else _cubic
    matrix = np.zeros((target, source))
    for tap in taps:
        columns = (base + tap).clip(0, source - 1)
        np.add.at(matrix, (np.arange(target), columns), kernel(np.abs(centre - base - tap)))
    return matrix.astype(np.float32)


def _triangle(distance: Float[np.ndarray, " taps"]) -> Float[np.ndarray, " taps"]:
    return 1 - distance


def _cubic(distance: Float[np.ndarray, " taps"]) -> Float[np.ndarray, " taps"]:
    """Cubic convolution (Keys 1981)."""
    a, d = BICUBIC_A, distance
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, far)
