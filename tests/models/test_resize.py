"""Interpolation against PyTorch."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from oneformer_jax.models.ops import Method, resize


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("source", "target"),
    [((6, 8), (12, 16)), ((24, 32), (3, 4)), ((7, 5), (16, 3)), ((1, 9), (4, 9)), ((13, 4), (5, 30))],
)
def test_equals_pytorch(method: Method, source: tuple[int, int], target: tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal((2, *source, 3)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x.transpose(0, 3, 1, 2)), size=target, mode=method, align_corners=False
    )
    actual = resize(jnp.asarray(x), target, method)
    np.testing.assert_allclose(actual, expected.numpy().transpose(0, 2, 3, 1), atol=5e-6)
