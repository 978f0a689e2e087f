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
from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.gpu.attention import KernelAttention
from oneformer_jax.models.layers import Dense, Dropout, layer_norm, xavier_uniform
from oneformer_jax.models.remat import Remat

ROWS = 5
CHOICES: tuple[Remat, ...] = ("light", "dots", "blocks")


class FeedForward(nn.Module):
    @nn.compact
    def __call__(self, x: Any, *, deterministic: bool) -> Any:
        y = Dense(6, kernel_init=xavier_uniform, marks_input=True, name="wide")(layer_norm(name="norm")(x))
        y = Dropout(0.5, deterministic)(nn.gelu(y))
        return x + Dense(4, kernel_init=xavier_uniform, marks_input=True, name="narrow")(y)


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


# Channels of what a Swin block of width c keeps of a pixel: its input; queries, keys and values, the sums of its
# attention, the projection and the wide half of the feed-forward, which is 4 c; or its input alone.
@pytest.mark.slow
@pytest.mark.parametrize(("choice", "widths"), [("dots", 1 + 3 + 1 + 1 + 4), ("blocks", 1)])
def test_a_compiled_forward_pass_of_swin_keeps_so_many_bytes(choice: Remat, widths: int) -> None:
    config = SwinConfig(embed_dim=8, depths=(3,), num_heads=(1,), window_size=4, drop_path_rate=0.2)
    images = jnp.ones((2, 64, 64, 3))
    params = config.build().init(jax.random.key(1), images, deterministic=True)["params"]

    def features(params: Any, images: jax.Array) -> jax.Array:
        with remat.using(choice):
            rngs = {"dropout": jax.random.key(2)}
            return config.build().apply({"params": params}, images, deterministic=False, rngs=rngs)["res2"]

    forward = jax.jit(lambda params, images: jax.vjp(partial(features, images=images), params)[1])
    kept = forward.lower(params, images).compile().memory_analysis().output_size_in_bytes
    of_map = 2 * 16 * 16 * 8 * 4
    # Beside the blocks: the images, what enters the first and the last norm; and the parameters.
    expected = images.nbytes + (3 * widths + 2) * of_map + sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert kept == pytest.approx(expected, rel=0.05)
