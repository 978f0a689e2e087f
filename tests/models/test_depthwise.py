"""Both formulations of the depthwise convolution, against PyTorch's."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.torch_convolution import torch_convolution

from oneformer_jax.models.depthwise import grouped_convolution, shifted_sums


@pytest.mark.parametrize("convolution", [shifted_sums, grouped_convolution])
@pytest.mark.parametrize("shape", [(2, 5, 9, 3), (1, 1, 2, 1)], ids=str)
def test_values_and_gradients(convolution: Callable, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x, kernel, cotangent = (rng.normal(size=size).astype(np.float32) for size in (shape, (7, 7, 1, shape[-1]), shape))
    result, pullback = jax.vjp(convolution, jnp.asarray(x), jnp.asarray(kernel))
    found = (result, *pullback(jnp.asarray(cotangent)))

    for one, truth in zip(found, torch_convolution(x, kernel, cotangent, groups=shape[-1]), strict=True):
        np.testing.assert_allclose(one, truth, rtol=1e-5, atol=2e-5)


def test_sums_are_not_rounded_before_they_are_complete() -> None:
    """In bfloat16 256 + 1 is 256: 49 ones added one by one to it would all be lost."""
    kernel = jnp.ones((7, 7, 1, 1), jnp.bfloat16)
    x = jnp.ones((1, 7, 7, 1), jnp.bfloat16).at[0, 0, 0, 0].set(256)
    assert float(shifted_sums(x, kernel)[0, 3, 3, 0]) == 304
