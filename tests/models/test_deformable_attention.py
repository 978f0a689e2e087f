"""Deformable attention against PyTorch's grid_sample: values and the gradients of all three inputs."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh

from oneformer_jax.models.gpu.formulation import ops_of_gpus
from oneformer_jax.models.ops import CPU, Ops, deformable_attention

ODD = ((5, 3), (1, 7))
SHAPES = [
    ((3, 5),),
    ((1, 1), (2, 3)),
    ((8, 6), (4, 3), (2, 2)),
    ((1, 7), (5, 1), (1, 1)),
]


def torch_reference(
    value: torch.Tensor, shapes: tuple[tuple[int, int], ...], locations: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    b, _, n, d = value.shape
    q = locations.shape[1]
    total = torch.zeros(b, q, n, d)
    for level, part in enumerate(value.split([h * w for h, w in shapes], dim=1)):
        h, w = shapes[level]
        image = part.permute(0, 2, 3, 1).reshape(b * n, d, h, w)
        grid = 2 * locations[:, :, :, level].permute(0, 2, 1, 3, 4).reshape(b * n, q, -1, 2) - 1
        sampled = torch.nn.functional.grid_sample(image, grid, padding_mode="zeros", align_corners=False)
        sampled = sampled.reshape(b, n, d, q, -1).permute(0, 3, 1, 4, 2)
        total = total + (sampled * weights[:, :, :, level, :, None]).sum(3)
    return total.reshape(b, q, n * d)


GPU = ops_of_gpus(Mesh(np.array(jax.devices()[:1]), ("data",)))


def random_inputs(
    shapes: tuple[tuple[int, int], ...], *, b: int = 2, q: int = 7, n: int = 3, p: int = 4, d: int = 5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, locations (a third of them outside the image) and weights that do not sum to one."""
    rng = np.random.default_rng(seed)
    value = rng.normal(size=(b, sum(h * w for h, w in shapes), n, d)).astype(np.float32)
    locations = rng.uniform(-0.3, 1.3, (b, q, n, len(shapes), p, 2)).astype(np.float32)
    weights = rng.normal(size=(b, q, n, len(shapes), p)).astype(np.float32)
    return value, locations, weights


def assert_equals_torch(shapes: tuple[tuple[int, int], ...], inputs: tuple[np.ndarray, ...], ops: Ops = CPU) -> None:
    """The outputs and the gradients of a random linear functional agree with PyTorch."""
    tensors = [torch.tensor(x, requires_grad=True) for x in inputs]
    expected = torch_reference(tensors[0], shapes, tensors[1], tensors[2])
    cotangent = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    expected.backward(torch.tensor(cotangent))

    output, pullback = jax.vjp(lambda v, x, w: ops.deformable_attention(v, shapes, x, w), *map(jnp.asarray, inputs))
    np.testing.assert_allclose(output, expected.detach().numpy(), rtol=1e-5, atol=1e-5)
    for name, ours, theirs in zip(
        ("value", "locations", "weights"), pullback(jnp.asarray(cotangent)), tensors, strict=True
    ):
        assert theirs.grad is not None
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_equals_grid_sample(shapes: tuple[tuple[int, int], ...]) -> None:
    assert_equals_torch(shapes, random_inputs(shapes))


@pytest.mark.slow
@pytest.mark.parametrize(("shapes", "points"), [(SHAPES[2], 4), (SHAPES[3], 3)], ids=str)
def test_the_formulation_for_gpus_equals_grid_sample(shapes: tuple[tuple[int, int], ...], points: int) -> None:
    assert_equals_torch(shapes, random_inputs(shapes, p=points), GPU)


@partial(jax.jit, static_argnums=0)
def with_gradients(ops: Ops, *inputs: jax.Array) -> tuple[jax.Array, ...]:
    out, pullback = jax.vjp(lambda value, *samples: ops.deformable_attention(value, ODD, *samples), *inputs)
    return out, *pullback(jnp.cos(out))


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 4.0), st.floats(-2.0, 2.0))
def test_formulations_agree_wherever_samples_lie(seed: int, spread: float, centre: float) -> None:
    """From all of them in one place to most of them outside."""
    value, locations, weights = random_inputs(ODD, q=5, n=2, p=3, d=3, seed=seed)
    inputs = value, np.float32(centre) + np.float32(spread) * (locations - np.float32(0.5)), weights
    for a, b in zip(with_gradients(GPU, *inputs), with_gradients(CPU, *inputs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


@pytest.mark.slow
def test_on_borders_and_far_outside() -> None:
    """Pixel coordinates that float32 holds exactly: whole, half, and the first and last that reach no pixel."""
    h, w = 2, 4
    x = (np.array([-(2.0**40), -3, -1.5, -1, -0.5, 0, 0.5, 1, 3, 3.5, 4, 4.5, 9, 2.0**40]) + 0.5) / w
    y = (np.array([-(2.0**40), -2, -1, -0.5, 0, 1, 1.5, 2, 7, 2.0**40]) + 0.5) / h
    grid = np.stack(np.meshgrid(x, y), -1).reshape(1, -1, 1, 1, 1, 2).astype(np.float32)
    rng = np.random.default_rng(0)
    value = rng.normal(size=(1, h * w, 1, 3)).astype(np.float32)
    weights = rng.normal(size=grid.shape[:-1]).astype(np.float32)
    assert_equals_torch(((h, w),), (value, grid, weights))


def test_infinite_and_nan_locations_stay_with_their_query() -> None:
    shapes = ((3, 4),)
    value, locations, weights = random_inputs(shapes, b=1, q=3, n=1, p=1)
    locations[0, 0], locations[0, 1] = np.nan, np.inf
    out = np.asarray(deformable_attention(jnp.asarray(value), shapes, jnp.asarray(locations), jnp.asarray(weights)))
    assert np.isnan(out[0, 0]).all()
    np.testing.assert_array_equal(out[0, 1], 0)
    assert np.isfinite(out[0, 2]).all()


@pytest.mark.slow
def test_under_vmap_and_jit() -> None:
    """Gradients of many models at once equal those of one after the other."""
    shapes = ((4, 3), (2, 2))
    inputs = [jnp.asarray(np.stack(x)) for x in zip(*(random_inputs(shapes, seed=i) for i in range(3)), strict=True)]

    def loss(value: jax.Array, locations: jax.Array, weights: jax.Array) -> jax.Array:
        return jnp.sum(deformable_attention(value, shapes, locations, weights) ** 2)

    gradient = jax.grad(loss, argnums=(0, 1, 2))
    together = jax.jit(jax.vmap(gradient))(*inputs)
    for i in range(3):
        for ours, single in zip(together, gradient(*(x[i] for x in inputs)), strict=True):
            np.testing.assert_allclose(ours[i], single, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shapes", [((3, 5),), ((3, 5), (2, 2)), ((3, 4), (1, 2), (1, 1))], ids=str)
def test_refuses_shapes_that_do_not_fit(shapes: tuple[tuple[int, int], ...]) -> None:
    value, locations, weights = random_inputs(((3, 4), (1, 2)))
    with pytest.raises(ValueError, match="do not fit"):
        deformable_attention(jnp.asarray(value), shapes, jnp.asarray(locations), jnp.asarray(weights))


SHARDED = """
import jax, jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from oneformer_jax.models.ops import deformable_attention
shapes = ((4, 4), (2, 2))
inputs = jnp.ones((4, 20, 2, 8)), jnp.full((4, 5, 2, 2, 3, 2), 0.4), jnp.ones((4, 5, 2, 2, 3))
sharding = NamedSharding(Mesh(jax.devices(), ("batch",)), PartitionSpec("batch"))
loss = lambda *x: jnp.square(deformable_attention(x[0], shapes, *x[1:])).sum((1, 2))
step = jax.jit(lambda *x: jax.vjp(loss, *x)[1](jnp.ones(4)), in_shardings=sharding, out_shardings=sharding)
text = step.lower(*inputs).compile().as_text()
assert len(jax.devices()) == 2
assert not any(name in text for name in ("all-gather", "all-reduce", "all-to-all", "collective-permute")), text
print("local")
"""


@pytest.mark.slow
def test_sharded_batch_needs_no_communication() -> None:
    """Forward and backward of a batch split over two devices: in a process of its own, as devices are set at start."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run([sys.executable, "-c", SHARDED], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "local", done.stderr
