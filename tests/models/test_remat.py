"""What blocks keep for the backward pass: counted by hand, and without influence on the gradients."""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr, Jaxpr, Var
from jax.sharding import Mesh

from oneformer_jax.models import ops, remat
from oneformer_jax.models.gpu.attention import KernelAttention
from oneformer_jax.models.layers import Dense, Dropout, layer_norm, xavier_uniform
from oneformer_jax.models.remat import Remat

ROWS = 5
CHOICES: tuple[Remat, ...] = ("light", "dots", "blocks")


class FeedForward(nn.Module):
    @nn.compact
    def __call__(self, x: Any, *, deterministic: bool) -> Any:
        y = Dense(6, kernel_init=xavier_uniform, name="wide")(layer_norm(name="norm")(x))
        y = Dropout(0.5, deterministic)(nn.gelu(y))
        return x + Dense(4, kernel_init=xavier_uniform, name="narrow")(y)


class TwoBlocks(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        for i in range(2):
            x = remat.block(FeedForward(name=f"block_{i}"), x, deterministic=False)
        return x


X = jax.random.normal(jax.random.key(0), (ROWS, 4))
MODEL = TwoBlocks()
PARAMS = MODEL.init({"params": jax.random.key(1), "dropout": jax.random.key(2)}, X)


def outputs(choice: Remat, params: Any) -> jax.Array:
    with remat.using(choice):
        return MODEL.apply(params, X, rngs={"dropout": jax.random.key(3)})


# Of one block: its input; what each layer multiplies (normalised rows, activations) and the first one's results; the
# second one's only enter a sum.
@pytest.mark.parametrize(
    ("choice", "shapes"),
    [
        ("blocks", [(ROWS, 4)]),
        ("dots", [(ROWS, 4), (ROWS, 6)]),
        ("light", [(ROWS, 4), (ROWS, 4), (ROWS, 6), (ROWS, 6)]),
    ],
)
def test_a_block_keeps_what_is_marked(choice: Remat, shapes: list[tuple[int, int]]) -> None:
    _, pullback = jax.eval_shape(partial(jax.vjp, partial(outputs, choice)), PARAMS)
    kept = [leaf.shape for leaf in jax.tree.leaves(pullback) if leaf.shape[:1] == (ROWS,)]
    assert sorted(kept) == sorted(2 * shapes)


@pytest.mark.parametrize("choice", CHOICES)
def test_gradients_do_not_depend_on_what_is_kept(choice: Remat) -> None:
    """Dropout is drawn again."""

    def gradients(choice: Remat) -> Any:
        return jax.jit(jax.grad(lambda params: jnp.sum(outputs(choice, params) ** 2)))(PARAMS)

    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), gradients(choice), gradients("none"))


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return ops.attend((x, x, x), Dropout(0.0, True), scale=1.0)


class Block(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return remat.block(Attention(), x)


def backward(choice: Remat, attend: Any) -> Counter[str]:
    """How often the backward pass of an attention has each operation; kernels by their names."""

    def apply(x: jax.Array) -> jax.Array:
        with remat.using(choice), ops.using(ops.Ops(attend=attend)):
            return Block().apply({}, x)

    x = jnp.ones((1, 8, 1, 16))
    result, pullback = jax.vjp(apply, x)
    return Counter(names(jax.make_jaxpr(pullback)(result).jaxpr))


def names(jaxpr: Jaxpr) -> Iterator[str]:
    """Of the operations whose results are used."""
    used = set(jaxpr.outvars)
    for equation in reversed(jaxpr.eqns):
        if used.isdisjoint(equation.outvars):
            continue
        used.update(variable for variable in equation.invars if isinstance(variable, Var))
        is_kernel = equation.primitive.name == "pallas_call"
        yield equation.params["name"] if is_kernel else equation.primitive.name
        for value in () if is_kernel else equation.params.values():
            if isinstance(value, ClosedJaxpr | Jaxpr):
                yield from names(value.jaxpr if isinstance(value, ClosedJaxpr) else value)


def test_no_product_of_an_attention_is_computed_twice_unless_asked() -> None:
    """The derivatives of its two products are four; without its logits it is one more, without its sums two."""
    products = {choice: backward(choice, ops.normalised_sums)["dot_general"] for choice in ("none", *CHOICES)}
    assert products == {"none": 4, "light": 4, "dots": 5, "blocks": 6}


def test_the_kernel_of_an_attention_runs_once_unless_asked() -> None:
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    runs = {choice: backward(choice, KernelAttention(mesh, interpret=True))["means"] for choice in ("none", *CHOICES)}
    assert runs == {"none": 0, "light": 0, "dots": 0, "blocks": 1}
