"""Deformable attention against PyTorch's grid_sample: values and the gradients of all three inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from oneformer_jax.models.deformable_attention import deformable_attention

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


def random_inputs(
    shapes: tuple[tuple[int, int], ...], *, b: int = 2, q: int = 7, n: int = 3, p: int = 4, d: int = 5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, locations (a third of them outside the image) and weights that do not sum to one."""
    rng = np.random.default_rng(seed)
    value = rng.normal(size=(b, sum(h * w for h, w in shapes), n, d)).astype(np.float32)
    locations = rng.uniform(-0.3, 1.3, (b, q, n, len(shapes), p, 2)).astype(np.float32)
    weights = rng.normal(size=(b, q, n, len(shapes), p)).astype(np.float32)
    return value, locations, weights


def both_gradients(shapes: tuple[tuple[int, int], ...], inputs: tuple[np.ndarray, ...]) -> None:
    """Assert that the outputs and the gradients of a random linear functional agree."""
    tensors = [torch.tensor(x, requires_grad=True) for x in inputs]
    expected = torch_reference(tensors[0], shapes, tensors[1], tensors[2])
    cotangent = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    expected.backward(torch.tensor(cotangent))

    output, pullback = jax.vjp(lambda v, x, w: deformable_attention(v, shapes, x, w), *map(jnp.asarray, inputs))
    np.testing.assert_allclose(output, expected.detach().numpy(), rtol=1e-5, atol=1e-5)
    for name, ours, theirs in zip(
        ("value", "locations", "weights"), pullback(jnp.asarray(cotangent)), tensors, strict=True
    ):
        assert theirs.grad is not None
        np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_equals_grid_sample(shapes: tuple[tuple[int, int], ...]) -> None:
    both_gradients(shapes, random_inputs(shapes))
