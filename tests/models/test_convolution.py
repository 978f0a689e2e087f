"""The convolution of three by three pixels, against PyTorch's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from oneformer_jax.models.layers import convolved_3x3


@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 1, 1), (3, 8, 2)], ids=str)
def test_values_and_gradients(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    x, kernel, cotangent = (
        rng.normal(size=size).astype(np.float32) for size in [(*shape, 3), (3, 3, 3, 4), (*shape, 4)]
    )
    result, pullback = jax.vjp(convolved_3x3, jnp.asarray(x), jnp.asarray(kernel))
    found = (result, *pullback(jnp.asarray(cotangent)))

    image, weight = (torch.tensor(array.transpose(order), requires_grad=True) for array, order in orders(x, kernel))
    expected = torch.nn.functional.conv2d(image, weight, padding=1)
    expected.backward(torch.tensor(cotangent.transpose(0, 3, 1, 2)))
    truths = (
        expected.detach().permute(0, 2, 3, 1),
        image.grad.permute(0, 2, 3, 1),
        weight.grad.permute(2, 3, 1, 0),
    )
    for one, truth in zip(found, truths, strict=True):
        np.testing.assert_allclose(one, truth.numpy(), rtol=1e-5, atol=1e-5)


def orders(x: np.ndarray, kernel: np.ndarray) -> list[tuple[Any, tuple[int, ...]]]:
    return [(x, (0, 3, 1, 2)), (kernel, (3, 2, 0, 1))]
