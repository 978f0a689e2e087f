"""The convolution of three by three pixels, against PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.torch_convolution import torch_convolution

from oneformer_jax.models.layers import convolved_3x3


@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 1, 1), (3, 8, 2)], ids=str)
def test_values_and_gradients(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    x, kernel, cotangent = (
        rng.normal(size=size).astype(np.float32) for size in [(*shape, 3), (3, 3, 3, 4), (*shape, 4)]
    )
    result, pullback = jax.vjp(convolved_3x3, jnp.asarray(x), jnp.asarray(kernel))
    found = (result, *pullback(jnp.asarray(cotangent)))

    for one, truth in zip(found, torch_convolution(x, kernel, cotangent), strict=True):
        np.testing.assert_allclose(one, truth, rtol=1e-5, atol=1e-5)
