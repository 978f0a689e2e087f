"""How parts of the model are written in ONNX: for each a formulation that runtimes compute well.

`operations` are those of `models.ops` in these formulations: a configuration that holds them traces into them.
Layer normalisations are Flax's own modules: `layer_norms_as_nodes` intercepts them, in the calling thread alone.

Axes, where the model has no others: k samples (points of all levels).
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnx_ir
from jax import Array
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax2onnx.plugins.jax.lax.dot_general import DotGeneralPlugin
from jax2onnx.plugins.jax.numpy.mean import JnpMeanPlugin
from jax2onnx.plugins.plugin_system import PrimitiveLeafPlugin, import_all_plugins, register_primitive
from jaxtyping import Float

from converters.onnx.settings import Sampling
from oneformer_jax.models.deformable_attention import Shapes
from oneformer_jax.models.depthwise import grouped_convolution
from oneformer_jax.models.layers import Dropout
from oneformer_jax.models.ops import Blocked, Method, Ops, Projected, heads_first, interpolation_matrix

import_all_plugins()


def gathers(value: Array, shapes: Shapes, locations: Array, weights: Array) -> Array:
    """`ops.deformable_attention`, which says what the arguments are, as one `GatherND` of the four pixels around each
    sample, and one product with their coefficients: standard operators that every runtime computes alike.

    Levels have a border of zeros for what lies outside. Beyond it coordinates are cut off, so that the pixel which is
    not of the border has the coefficient 0.
    """
    b, _, n, d = value.shape
    q, points = locations.shape[1], locations.shape[4]
    levels, start = [], 0
    for h, w in shapes:
        level = value[:, start : start + h * w].reshape(b, h, w, n, d)
        levels.append(jnp.pad(level, ((0, 0), (1, 1), (1, 1), (0, 0), (0, 0))).reshape(b, -1, d))
        start += h * w
    table = jnp.concatenate(levels, axis=1)

    # One number for each of the k samples, beside (b, q, n, k).
    height, width = (np.repeat(np.array(x, np.int32), points)[None, None, None] for x in zip(*shapes, strict=True))
    areas = [(h + 2) * (w + 2) for h, w in shapes]
    first = np.repeat(np.cumsum([0, *areas[:-1]], dtype=np.int32), points)[None, None, None]
    stride, head = width + 2, np.arange(n, dtype=np.int32)[None, None, :, None]
    (x, fx), (y, fy) = (
        _cells(locations[..., axis].reshape(b, q, n, -1), size) for axis, size in enumerate((width, height))
    )
    row = (first + (y + 1) * stride + (x + 1)) * n + head
    below = stride * n
    rows = jnp.stack([row, row + n, row + below, row + below + n], axis=-1).reshape(b, q, n, -1, 1)
    corners = jnp.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx], axis=-1)
    coefficients = corners * weights.reshape(b, q, n, -1, 1)
    return MATMUL.bind(coefficients.reshape(b, q, n, 1, -1), GATHER.bind(table, rows)).reshape(b, q, n * d)


def _cells(place: Array, size: np.ndarray) -> tuple[Array, Array]:
    """The pixels -1, 0, ... left of (or above) each sample, and how far it is from them. `place` is a fraction of an
    axis, which has `size` pixels."""
    coordinate = jnp.minimum(jnp.maximum(place * size.astype(np.float32) - 0.5, -1.0), size.astype(np.float32))
    cell = jnp.minimum(jnp.maximum(jnp.floor(coordinate).astype(jnp.int32), -1), size - 1)
    return cell, coordinate - cell.astype(jnp.float32)


def grid_samples(value: Array, shapes: Shapes, locations: Array, weights: Array) -> Array:
    """The same as one `GridSample` a level, on maps of (B n, d, H, W)."""
    _, _, heads, width = value.shape
    _, queries, _, levels, points = weights.shape
    rows = value.transpose(0, 2, 3, 1).reshape(-1, width, value.shape[1])
    grids = (2 * locations - 1).transpose(0, 2, 3, 1, 4, 5)  # from -1 to 1; b n l q p 2
    start, samples = 0, []
    for level, (h, w) in enumerate(shapes):
        grid = grids[:, :, level].reshape(-1, queries, points, 2)
        samples.append(GRID_SAMPLE.bind(rows[:, :, start : start + h * w].reshape(-1, width, h, w), grid))
        start += h * w
    weights = weights.transpose(0, 2, 1, 3, 4).reshape(-1, 1, queries, levels * points)
    total = (jnp.concatenate(samples, axis=-1) * weights).sum(-1)  # (b n, d, q)
    return total.reshape(-1, heads * width, queries).transpose(0, 2, 1)


def attend(
    projected: Projected,
    dropout: Dropout,
    scale: float,
    bias: Float[Array, "n q k"] | None,
    blocked: Blocked | None,
) -> Float[Array, "b *m q n d"]:
    """`ops.attend` with a `Softmax`, which runtimes recognise as attention."""
    q, k, v = heads_first(projected)
    logits = MATMUL.bind(q * scale, k.swapaxes(-1, -2))
    if bias is not None:
        logits = logits + bias[(None,) * (logits.ndim - bias.ndim)]
    if isinstance(blocked, np.ndarray):
        logits = logits + np.where(blocked[..., None, :, :], np.float32(-100), np.float32(0))
    elif blocked is not None:
        logits = jnp.where(blocked[..., None, :, :], jnp.finfo(logits.dtype).min, logits)
    return MATMUL.bind(jax.nn.softmax(logits, axis=-1), v).swapaxes(-3, -2)


def resize(x: Float[Array, "b h w c"], size: tuple[int, int], method: Method) -> Float[Array, "b h2 w2 c"]:
    """`ops.resize` as products of matrices with whole rows and pixels."""
    _, height, width, channels = x.shape
    if height != size[0]:
        rows = jnp.asarray(interpolation_matrix(height, size[0], method))
        x = MATMUL.bind(rows, x.reshape(-1, height, width * channels)).reshape(-1, size[0], width, channels)
    if width != size[1]:
        x = MATMUL.bind(jnp.asarray(interpolation_matrix(width, size[1], method)), x)
    return x


def contract(equation: str, a: Array, b: Array) -> Array:
    """`ops.contract` of maps whose first letters are common and whose last letter is summed over, as a `MatMul`."""
    inputs, result = equation.split("->")
    left, right = inputs.split(",")
    shared = 0
    while shared < len(left) - 1 and left[shared] == right[shared]:
        shared += 1
    rows, columns = left[shared:-1], right[shared:-1]
    if left[-1] != right[-1] or result != left[:shared] + rows + columns or len(rows) != 1:
        raise NotImplementedError(f"einsum {equation} has no formulation for ONNX")
    flat = b.reshape(*b.shape[:shared], math.prod(b.shape[shared:-1]), b.shape[-1]) if len(columns) > 1 else b
    multiplied = MATMUL.bind(a, flat.swapaxes(-1, -2))
    return multiplied.reshape(*a.shape[:-1], *b.shape[shared:-1]) if len(columns) > 1 else multiplied


def operations(sampling: Sampling) -> Ops:
    """The formulations, with that of deformable attention which an export asks for."""
    sampled = {"gather": gathers, "grid_sample": grid_samples}[sampling]
    return Ops(attend, contract, resize, sampled, grouped_convolution)


def layer_norms_as_nodes() -> AbstractContextManager[None]:
    """Within it, every `nn.LayerNorm` over the last axis is one `LayerNormalization`."""

    def intercept(run: Callable[..., Any], arguments: Any, named: Any, context: nn.module.InterceptorContext) -> Any:
        norm = context.module
        if not isinstance(norm, nn.LayerNorm) or context.method_name != "__call__":
            return run(*arguments, **named)
        scale: Array = norm.get_variable("params", "scale")
        bias: Array = norm.get_variable("params", "bias")
        return LAYER_NORM.bind(arguments[0], scale, bias, epsilon=norm.epsilon)

    return nn.intercept_methods(intercept)


GATHER = Primitive("oneformer.gather")
GRID_SAMPLE = Primitive("oneformer.grid_sample")
LAYER_NORM = Primitive("oneformer.layer_norm")
MATMUL = Primitive("oneformer.matmul")


@register_primitive(jaxpr_primitive=GATHER.name)
class Gather(PrimitiveLeafPlugin):
    """The rows (B, ..., d) of tables (B, R, d) at numbers (B, ..., 1), which exist."""

    _PRIM = GATHER

    @staticmethod
    def abstract_eval(table: ShapedArray, rows: ShapedArray) -> ShapedArray:
        return ShapedArray((*rows.shape[:-1], table.shape[-1]), table.dtype)

    def lower(self, ctx: Any, eqn: Any) -> None:
        def build(table: Any, rows: Any, **outputs: Any) -> Any:
            numbers = ctx.builder.Cast(rows, to=onnx_ir.DataType.INT64, _outputs=[ctx.fresh_name("rows")])
            numbers.type, numbers.shape = onnx_ir.TensorType(onnx_ir.DataType.INT64), rows.shape
            return ctx.builder.GatherND(table, numbers, batch_dims=1, **outputs)

        _lower(ctx, eqn, build)


@register_primitive(jaxpr_primitive=GRID_SAMPLE.name)
class GridSample(PrimitiveLeafPlugin):
    """Bilinear samples of (N, C, H, W) at a grid (N, P, Q, 2) of x, y from -1 to 1, zeros outside."""

    _PRIM = GRID_SAMPLE

    @staticmethod
    def abstract_eval(maps: ShapedArray, grid: ShapedArray) -> ShapedArray:
        return ShapedArray((*maps.shape[:2], *grid.shape[1:3]), maps.dtype)

    def lower(self, ctx: Any, eqn: Any) -> None:
        builder = ctx.builder
        # Opset 20 has another name for the same.
        facts = {"mode": "linear" if builder.opset >= 20 else "bilinear", "padding_mode": "zeros", "align_corners": 0}
        _lower(ctx, eqn, lambda *inputs, **outputs: builder.GridSample(*inputs, **outputs, **facts))


@register_primitive(jaxpr_primitive=LAYER_NORM.name)
class LayerNorm(PrimitiveLeafPlugin):
    """Normalisation over the last axis (opset 17)."""

    _PRIM = LAYER_NORM

    @staticmethod
    def abstract_eval(x: ShapedArray, scale: ShapedArray, bias: ShapedArray, *, epsilon: float) -> ShapedArray:
        return ShapedArray(x.shape, x.dtype)

    def lower(self, ctx: Any, eqn: Any) -> None:
        facts = {"axis": -1, "epsilon": float(eqn.params["epsilon"])}
        _lower(ctx, eqn, lambda *inputs, **outputs: ctx.builder.LayerNormalization(*inputs, **outputs, **facts))


@register_primitive(jaxpr_primitive=MATMUL.name)
class MatMul(PrimitiveLeafPlugin):
    """NumPy's `matmul`, of operands whose leading axes are equal or lacking."""

    _PRIM = MATMUL

    @staticmethod
    def abstract_eval(a: ShapedArray, b: ShapedArray) -> ShapedArray:
        leading = a.shape[:-2] if a.ndim >= b.ndim else b.shape[:-2]
        return ShapedArray((*leading, a.shape[-2], b.shape[-1]), a.dtype)

    def lower(self, ctx: Any, eqn: Any) -> None:
        _lower(ctx, eqn, ctx.builder.MatMul)


for _lowering in (Gather, GridSample, LayerNorm, MatMul):
    _lowering.ensure_abstract_eval_bound()  # jax2onnx does it when it traces; the model can so be traced without it


@register_primitive(jaxpr_primitive="jax.numpy.mean")
class Mean(JnpMeanPlugin):
    """`jnp.mean` with the axes as an attribute before opset 18, where jax2onnx writes an input at all times."""

    def lower(self, ctx: Any, eqn: Any) -> None:
        if ctx.builder.opset >= 18:
            super().lower(ctx, eqn)
            return
        facts = {"axes": eqn.params["axes"], "keepdims": int(eqn.params["keepdims"])}
        _lower(ctx, eqn, lambda x, **outputs: ctx.builder.ReduceMean(x, **outputs, **facts))


@register_primitive(jaxpr_primitive="dot_general")
class DotGeneral(DotGeneralPlugin):
    """`x @ kernel` of any rank as `MatMul`, where jax2onnx writes an `Einsum`."""

    def lower(self, ctx: Any, eqn: Any) -> None:
        a, b = (variable.aval for variable in eqn.invars)
        if b.ndim == 2 and eqn.params["dimension_numbers"] == (((a.ndim - 1,), (0,)), ((), ())):
            _lower(ctx, eqn, ctx.builder.MatMul)
        else:
            super().lower(ctx, eqn)


def _lower(ctx: Any, eqn: Any, build: Any) -> None:
    """Adds one node for an equation with one result."""
    inputs = [ctx.get_value_for_var(variable) for variable in eqn.invars]
    (variable,) = eqn.outvars
    result = build(*inputs, _outputs=[ctx.fresh_name(eqn.primitive.name)])
    result.type = onnx_ir.TensorType(inputs[0].dtype)
    result.shape = onnx_ir.Shape([size if isinstance(size, int) else str(size) for size in variable.aval.shape])
    ctx.bind_value_for_var(variable, result)
