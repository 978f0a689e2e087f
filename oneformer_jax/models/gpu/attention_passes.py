"""The forward and the backward pass of attention: which kernels run, in how many programs, and what they cost.

Axes: g groups that attend apart (images, or windows of images), q queries, k keys, h heads, d channels of a head.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from oneformer_jax.models.gpu import attention_kernels
from oneformer_jax.models.gpu.attention_problem import Cotangents, Inputs, Problem


def means(problem: Problem, inputs: Inputs) -> tuple[Array, Array]:
    """The means of the values (g, q, h, d) and `Cotangents.normaliser`."""
    splits, programs = problem.splits, problem.programs(problem.tiles[0])
    dtype = inputs.value.dtype
    parts, normalisers = _run(
        problem,
        attention_kernels.means,
        (programs, splits, problem.groups, problem.heads),
        (
            jax.ShapeDtypeStruct((splits, *problem.shape), dtype if splits == 1 else jnp.float32),
            jax.ShapeDtypeStruct((splits, problem.groups, problem.heads, problem.queries), jnp.float32),
        ),
        inputs,
        products=2,
        reads=(splits, programs, programs),
    )
    if splits == 1:
        return parts[0], normalisers[0]
    normaliser = jax.nn.logsumexp(normalisers, axis=0)
    shares = jnp.exp(normalisers - normaliser[None]).swapaxes(2, 3)[..., None]
    return jnp.sum(parts * shares, axis=0).astype(dtype), normaliser


def gradients(problem: Problem, inputs: Inputs, cotangents: Cotangents) -> tuple[tuple[Array, ...], Array | None]:
    """Of queries, keys and values, in one array where they are packed, and of the bias, summed over all groups."""
    (rows, columns), splits = problem.tiles, problem.splits
    of_queries, of_keys = problem.programs(rows), problem.programs(columns)
    run = partial(_run, problem)
    query, key, value, bias, *_ = inputs

    packed = jax.ShapeDtypeStruct(query.shape, query.dtype)
    separate = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (key, value))
    parts = jax.ShapeDtypeStruct((splits, *query.shape), query.dtype if splits == 1 else jnp.float32)
    of_tokens = run(
        attention_kernels.key_and_value_gradients,
        (of_keys, problem.groups, problem.heads),
        (packed,) if problem.is_packed else separate,
        inputs,
        cotangents,
        products=4,
        reads=(of_keys, 1, 1, of_keys),
        writes=2 / 3 if problem.is_packed else 1.0,
    )
    (of_query,) = run(
        attention_kernels.query_gradient,
        (of_queries, splits, problem.groups, problem.heads),
        (packed if problem.is_packed else parts,),
        inputs,
        cotangents,
        products=3,
        reads=(splits, of_queries, of_queries, splits),
        writes=1 / 3 if problem.is_packed else 1.0,
        into=of_tokens if problem.is_packed else (),
    )
    if problem.is_packed:
        of_tokens = (of_query,)
    else:
        of_query = of_query[0] if splits == 1 else jnp.sum(of_query, axis=0).astype(query.dtype)
        of_tokens = (of_query, *of_tokens)
    if bias is None:
        return of_tokens, None
    (of_bias,) = run(
        attention_kernels.bias_gradient,
        (rows, columns, problem.shares, problem.heads),
        (jax.ShapeDtypeStruct((problem.shares, *bias.shape), jnp.float32),),
        inputs,
        cotangents,
        products=2,
        reads=(columns, rows, rows, columns),
    )
    return of_tokens, jnp.sum(of_bias, axis=0)


def _run(
    problem: Problem,
    kernel: Callable[..., None],
    grid: tuple[int, ...],
    results: tuple[jax.ShapeDtypeStruct, ...],
    *arrays: Inputs | Cotangents,
    products: int,
    reads: tuple[int, ...],
    writes: float = 1.0,
    into: tuple[Array, ...] = (),
) -> tuple[Array, ...]:
    """The results of a kernel that makes so many products of matrices as large as the logits.

    `reads`: how many programs read each tile of queries, keys, values and, in the backward pass, cotangents of the
    means; what is smaller is in a cache, and counts once. `writes`: which part of the results the kernel writes; the
    other part is that of the arrays `into` which it writes.
    """
    logits = problem.groups * problem.heads * problem.queries * problem.keys
    tokens = problem.queries, problem.keys, problem.keys, problem.queries
    row = problem.groups * problem.heads * problem.width * arrays[0][0].dtype.itemsize
    read = row * sum(count * times for count, times in zip(tokens[: len(reads)], reads, strict=True))
    small = sum(x.nbytes for x in jax.tree.leaves((arrays[0][3:], [x[1:] for x in arrays[1:]])))
    written = round(writes * sum(x.size * x.dtype.itemsize for x in results))
    inputs = len(jax.tree.leaves(arrays))
    launched = pl.pallas_call(
        partial(kernel, problem),
        results,
        grid=grid,
        input_output_aliases={inputs + i: i for i in range(len(into))},
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=2),
        cost_estimate=pl.CostEstimate(2 * products * logits * problem.width, logits, read + small + written),
        interpret=problem.interpret,
        name=kernel.__name__,
    )
    return tuple(launched(*arrays, *into))
