"""Attention, residual layers and normalisation against PyTorch; initial distributions against their formulas."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from oneformer_jax.models.layers import Dense, GroupNorm, layer_norm, sine_positions, xavier_uniform
from oneformer_jax.models.pixel_decoder import directional_offsets, reference_points
from oneformer_jax.models.precision import as_variables, learning_in
from oneformer_jax.models.transformer import FeedForwardLayer, MultiHeadAttention, SelfAttentionLayer


def attention_params(module: torch.nn.MultiheadAttention) -> dict[str, Any]:
    return {
        "in_proj": {"kernel": to_jax(module.in_proj_weight.T), "bias": to_jax(module.in_proj_bias)},
        "out_proj": {"kernel": to_jax(module.out_proj.weight.T), "bias": to_jax(module.out_proj.bias)},
    }


def linear_params(module: torch.nn.Linear) -> dict[str, Any]:
    return {"kernel": to_jax(module.weight.T), "bias": to_jax(module.bias)}


def norm_params(module: torch.nn.LayerNorm) -> dict[str, Any]:
    return {"scale": to_jax(module.weight), "bias": to_jax(module.bias)}


def to_jax(x: torch.Tensor) -> jax.Array:
    return jnp.asarray(x.detach().numpy())


def randomise(module: torch.nn.Module) -> None:
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)


def test_attention_with_a_mask() -> None:
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(24, 4, batch_first=True)
    randomise(theirs)
    query, key, value = torch.randn(2, 5, 24), torch.randn(2, 7, 24), torch.randn(2, 7, 24)
    blocked = torch.rand(2, 5, 7) < 0.5
    blocked[..., 0] = False
    expected = theirs(query, key, value, attn_mask=blocked.repeat_interleave(4, 0))[0]
    actual = MultiHeadAttention(4).apply(
        {"params": attention_params(theirs)},
        *(to_jax(x) for x in (query, key, value, blocked)),
        deterministic=True,
    )
    np.testing.assert_allclose(actual, expected.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("shared", ["all", "query and key", "none"])
def test_attention_to_the_same_tokens_is_attention_to_equal_ones(shared: str) -> None:
    """What is projected at once, because it is one array, is what is projected apart."""
    x, y = jax.random.normal(jax.random.key(0), (2, 2, 5, 24))
    attention = MultiHeadAttention(4)
    variables = attention.init(jax.random.key(1), x, x, x, deterministic=True)
    query, key, value = x, x if shared != "none" else x + 0, x if shared == "all" else y
    together = attention.apply(variables, query, key, value, deterministic=True)
    apart = attention.apply(variables, query, key + 0, value + 0, deterministic=True)
    np.testing.assert_allclose(together, apart, atol=1e-5)


def test_the_derivative_of_layer_normalisation() -> None:
    """That of Flax's formula, which JAX differentiates."""
    x, slope = 3 * jax.random.normal(jax.random.key(0), (2, 4, 5, 24)) + 1
    ours, theirs = layer_norm(), nn.LayerNorm(epsilon=1e-5, use_fast_variance=False)
    params = {"scale": jnp.linspace(0.5, 2, 24), "bias": jnp.linspace(-1, 1, 24)}

    def run(module: nn.Module) -> tuple[jax.Array, Any]:
        result, pullback = jax.vjp(lambda params, x: module.apply({"params": params}, x), params, x)
        return result, pullback(slope)

    for actual, expected in zip(jax.tree.leaves(run(ours)), jax.tree.leaves(run(theirs)), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_kernel_learns_from_sums_that_are_not_rounded() -> None:
    """Products are of bfloat16 numbers, which count to 256; the sum over rows is of float32."""
    x = jnp.ones((1001, 4))
    params = {"layer": {"kernel": jnp.full((4, 3), 0.1), "bias": jnp.zeros(3)}}

    def total(params: dict[str, Any]) -> jax.Array:
        layer = as_variables(learning_in(params, jnp.bfloat16))
        variables = {name: part["layer"] for name, part in layer.items()}
        return jnp.sum(Dense(3, xavier_uniform).apply(variables, x).astype(float))

    gradient = jax.grad(total)(params)["layer"]
    assert {leaf.dtype for leaf in gradient.values()} == {jnp.dtype(jnp.float32)}
    np.testing.assert_array_equal(gradient["kernel"], np.full((4, 3), 1001.0))
    np.testing.assert_array_equal(gradient["bias"], np.full(3, 1001.0))


@pytest.mark.parametrize("pre_norm", [False, True])
def test_residual_layers(pre_norm: bool) -> None:
    torch.manual_seed(0)
    theirs = torch.nn.TransformerEncoderLayer(24, 4, 48, norm_first=pre_norm, batch_first=True, dropout=0.0)
    randomise(theirs)
    x = torch.randn(2, 5, 24)
    expected = theirs(x).detach().numpy()
    attention = {"attention": attention_params(theirs.self_attn), "norm": norm_params(theirs.norm1)}
    y = SelfAttentionLayer(4, 0.0, pre_norm).apply(
        {"params": attention}, to_jax(x), jnp.zeros((1, 5, 24)), deterministic=True
    )
    feed_forward = {
        "linear1": linear_params(theirs.linear1),
        "linear2": linear_params(theirs.linear2),
        "norm": norm_params(theirs.norm2),
    }
    y = FeedForwardLayer(48, 0.0, pre_norm).apply({"params": feed_forward}, y, deterministic=True)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_group_norm_keeps_its_digits_beside_a_large_mean() -> None:
    x = np.random.default_rng(0).standard_normal((2, 64, 64, 64)).astype(np.float32) + 100
    exact = torch.nn.functional.group_norm(torch.from_numpy(x.transpose(0, 3, 1, 2)).double(), 32)
    params = {"scale": jnp.ones(64), "bias": jnp.zeros(64)}
    actual = GroupNorm(32).apply({"params": params}, jnp.asarray(x))
    np.testing.assert_allclose(actual, exact.numpy().transpose(0, 2, 3, 1), atol=5e-5)


def test_sine_positions_encode_y_then_x() -> None:
    table = np.asarray(sine_positions(3, 5, 8))
    np.testing.assert_allclose(table[2, 1, 0], np.sin(2 * np.pi), atol=1e-5)
    np.testing.assert_allclose(table[0, 1, 1], np.cos(2 * np.pi / 3), atol=1e-5)
    np.testing.assert_allclose(table[2, 1, 4], np.sin(2 * np.pi * 2 / 5), atol=1e-5)
    np.testing.assert_allclose(table[2, 1, 7], np.cos(2 * np.pi * 2 / 5 / 10000**0.5), atol=1e-5)


def test_reference_points_are_pixel_centres() -> None:
    points = reference_points(((1, 2), (2, 1)))
    np.testing.assert_allclose(points, [[0.25, 0.5], [0.75, 0.5], [0.5, 0.25], [0.5, 0.75]])


def test_sampling_starts_in_as_many_directions_as_heads() -> None:
    bias = directional_offsets(8, 3, 4)(jax.random.key(0), (8 * 3 * 4 * 2,)).reshape(8, 3, 4, 2)
    for head, (x, y) in {0: (1, 0), 1: (1, 1), 2: (0, 1), 4: (-1, 0), 7: (1, -1)}.items():
        for point in range(4):
            np.testing.assert_allclose(bias[head, :, point], np.tile([x, y], (3, 1)) * (point + 1), atol=1e-6)


def test_fused_projection_starts_as_one_matrix() -> None:
    x = jnp.zeros((1, 2, 128))
    params = MultiHeadAttention(4).init(jax.random.key(0), x, x, x, deterministic=True)["params"]
    bound = (6 / (128 + 3 * 128)) ** 0.5
    largest = float(jnp.abs(params["in_proj"]["kernel"]).max())
    assert 0.99 * bound < largest <= bound
