"""Mixed precision: which operations are done in halves, how far that carries the results, what it saves."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr
from tiny import TINY

from oneformer_jax.models import oneformer
from oneformer_jax.models.layers import Dropout
from oneformer_jax.models.oneformer import Params
from oneformer_jax.models.ops import attend, deformable_attention
from oneformer_jax.models.precision import wide_product, with_kernels_in
from oneformer_jax.models.predictions import LayerPredictions, mask_logits

pytestmark = pytest.mark.slow

HALVES = (jnp.bfloat16, jnp.float16)
TOKENS = jnp.asarray([[49406, 320, 10518, 518, 23694, 49407, *[49407] * 10]], jnp.int32)


@pytest.fixture(scope="module")
def params() -> Params:
    return oneformer.init(TINY, jax.random.key(0))


def outputs_of(params: Params, dtype: Any, rng: jax.Array | None = None) -> tuple[LayerPredictions, jax.Array]:
    params = with_kernels_in(params, dtype)
    images = jax.random.normal(jax.random.key(1), (1, 64, 64, 3))
    features = oneformer.encode(params, images, config=TINY, rng=rng)
    layers = oneformer.decode(params, features, TOKENS, config=TINY, rng=rng)
    return layers, oneformer.encode_text(params, TOKENS % 64, jnp.zeros((1, 3), jnp.int32), config=TINY)


def equations(jaxpr: Jaxpr) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: isinstance(x, ClosedJaxpr)):
            if isinstance(value, ClosedJaxpr | Jaxpr):
                yield from equations(value.jaxpr if isinstance(value, ClosedJaxpr) else value)


def operations(equation: Any) -> int:
    """Multiplications of a matrix product or convolution."""
    (left, right), out = (v.aval.shape for v in equation.invars[:2]), equation.outvars[0].aval.shape
    if equation.primitive.name == "dot_general":
        ((contracted, _), _) = equation.params["dimension_numbers"]
        return math.prod(out) * math.prod(left[axis] for axis in contracted)
    return math.prod(out) * math.prod(right[:-1])


@pytest.mark.tao(6)
@pytest.mark.parametrize("dtype", HALVES)
def test_products_are_of_halves_and_what_needs_digits_is_not(params: Params, dtype: Any) -> None:
    def forward_and_backward(params: Params) -> Any:
        outputs, pullback = jax.vjp(partial(outputs_of, dtype=dtype, rng=jax.random.key(2)), params)
        return pullback(outputs)

    found = list(equations(jax.make_jaxpr(forward_and_backward)(params).jaxpr))
    products = [e for e in found if e.primitive.name in ("dot_general", "conv_general_dilated")]
    in_halves = sum(operations(e) for e in products if all(v.aval.dtype == dtype for v in e.invars))
    assert in_halves > 0.9 * sum(map(operations, products))  # the rest: interpolation, task MLP, sampling offsets
    for name in ("reduce_max", "rsqrt", "sqrt", "floor"):  # softmax, normalisation, coordinates
        dtypes = {v.aval.dtype for e in found if e.primitive.name == name for v in e.invars}
        assert dtypes == {jnp.dtype(jnp.float32)}, name


def test_what_leaves_the_model_is_float32(params: Params) -> None:
    """And so are the sums of its gradients, over points and over images of a text."""
    halves = with_kernels_in(params, jnp.bfloat16)
    features = jax.eval_shape(partial(oneformer.encode, config=TINY), halves, jnp.zeros((1, 64, 64, 3)))
    outputs = jax.eval_shape(partial(outputs_of, dtype=jnp.bfloat16), params)
    final = jax.eval_shape(partial(oneformer.predict, config=TINY), halves, features, TOKENS)
    assert {leaf.dtype for leaf in jax.tree.leaves((features, outputs, final))} == {jnp.dtype(jnp.float32)}


def test_results_stay_near_those_of_float32(params: Params) -> None:
    """A bfloat16 has 8 digits, a float16 has 11."""

    @partial(jax.jit, static_argnums=1)
    def results(params: Params, dtype: Any) -> tuple[jax.Array, ...]:
        layers, texts = outputs_of(params, dtype)
        return layers.class_logits, mask_logits(layers.mask_embeddings[-1], layers.mask_features), texts

    expected = results(params, jnp.float32)
    for dtype, tolerance in ((jnp.bfloat16, 0.05), (jnp.float16, 0.005)):
        for a, b in zip(results(params, dtype), expected, strict=True):
            assert 1e-6 < float(jnp.abs(a - b).max() / jnp.abs(b).max()) < tolerance


def test_less_is_kept_for_the_backward_pass(params: Params) -> None:
    def kept(dtype: Any) -> int:
        model = partial(outputs_of, dtype=dtype, rng=jax.random.key(2))
        _, pullback = jax.eval_shape(lambda params: jax.vjp(model, params), params)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pullback))

    assert kept(jnp.bfloat16) < 0.7 * kept(jnp.float32)


@pytest.mark.parametrize("dtype", HALVES)
def test_samples_of_halves_are_summed_in_float32(dtype: Any) -> None:
    """As if the values had been rounded first and all the rest had been float32; so are the gradients."""
    shapes, rng = ((3, 5), (2, 2)), np.random.default_rng(0)
    value = jnp.asarray(rng.normal(size=(2, 19, 3, 4)), dtype)
    locations = jnp.asarray(rng.uniform(-0.3, 1.3, (2, 7, 3, 2, 4, 2)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(2, 7, 3, 2, 4)), jnp.float32)

    def run(value: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        out, pullback = jax.vjp(lambda *x: deformable_attention(x[0], shapes, *x[1:]), value, locations, weights)
        return out, pullback(jnp.cos(out))

    (out, gradients), (expected, references) = run(value), run(value.astype(jnp.float32))
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
    assert gradients[0].dtype == dtype
    np.testing.assert_array_equal(gradients[0], references[0].astype(dtype))
    for a, b in zip(gradients[1:], references[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", HALVES)
def test_attention_of_halves(dtype: Any) -> None:
    """Logits are not rounded, the rounded weights add up to one: values that are all alike come out as they went in."""
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(2, 9, 1, 16)), dtype) for _ in range(3))
    logits = wide_product("bqnd,bknd->bnqk", q, k)
    exact = np.einsum("bqnd,bknd->bnqk", *(np.asarray(x, np.float64) for x in (q, k)))
    np.testing.assert_allclose(logits, exact, rtol=1e-5, atol=1e-5)

    def attended(*projected: jax.Array) -> jax.Array:
        return attend(projected, Dropout(0.0, deterministic=True), scale=1.0)

    np.testing.assert_allclose(attended(q, k, jnp.ones_like(v)), 1.0, rtol=float(jnp.finfo(dtype).eps))

    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(attended(q, k, v)))

    halves = jax.grad(loss, (0, 1, 2))(q, k, v)
    full = jax.grad(loss, (0, 1, 2))(*(x.astype(jnp.float32) for x in (q, k, v)))
    for a, b in zip(halves, full, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a.astype(jnp.float32), b, atol=8 * float(jnp.finfo(dtype).eps * jnp.abs(b).max()))
