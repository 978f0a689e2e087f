"""Sampling against PyTorch, a plain loop and the definition of the segment index."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiers import examples

from oneformer_jax.losses.points import (
    sample_features,
    sample_masks,
    sample_segment,
    sample_segments,
    uncertain_weights,
    uniform_points,
)


def bilinear(mask: np.ndarray, x: float, y: float) -> float:
    """The value at one point, by the definition: pixels around it weighted by their distance, 0 outside."""
    height, width = mask.shape
    column, row = x * width - 0.5, y * height - 0.5
    return sum(
        mask[i, j] * max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j))
        for i in range(height)
        for j in range(width)
    )


coordinates = st.floats(0, 1, width=32) | st.sampled_from([0.0, 1.0, 0.5])


@pytest.mark.slow
@settings(max_examples=examples(40))
@given(
    mask=hnp.arrays(np.float32, (3, 4), elements=st.floats(-10, 10, width=32)),
    points=hnp.arrays(np.float32, (6, 2), elements=coordinates),
)
def test_bilinear_sampling_is_the_weighted_mean_of_pixels(mask: np.ndarray, points: np.ndarray) -> None:
    expected = [bilinear(mask, x, y) for x, y in points]
    found = sample_masks(jnp.asarray(mask[None]), jnp.asarray(points[None]))
    np.testing.assert_allclose(found[0], expected, atol=1e-4)
    features = sample_features(jnp.asarray(mask[None, :, :, None]), jnp.asarray(points[None]))
    np.testing.assert_allclose(features[0, :, 0], expected, atol=1e-4)


def test_values_and_gradients_equal_grid_sample() -> None:
    rng = np.random.default_rng(0)
    masks, points = rng.normal(size=(3, 7, 9)).astype(np.float32), rng.random((3, 50, 2), np.float32)
    cotangent = rng.normal(size=(3, 50)).astype(np.float32)

    reference = torch.tensor(masks, requires_grad=True)
    sampled = F.grid_sample(reference[:, None], 2 * torch.tensor(points)[:, None] - 1, align_corners=False)[:, 0, 0]
    sampled.backward(torch.tensor(cotangent))

    found, pullback = jax.vjp(lambda m: sample_masks(m, jnp.asarray(points)), jnp.asarray(masks))
    np.testing.assert_allclose(found, sampled.detach(), atol=1e-6)
    np.testing.assert_allclose(pullback(jnp.asarray(cotangent))[0], reference.grad, atol=1e-6)


@pytest.mark.slow
def test_segments_equal_dense_masks_on_several_planes() -> None:
    rng = np.random.default_rng(1)
    index = np.stack([rng.integers(-1, 3, (2, 8, 6)), rng.choice([-1, 3], (2, 8, 6))], axis=1).astype(np.int16)
    plane, points = np.array([0, 0, 0, 1]), jnp.asarray(rng.random((2, 20, 2), np.float32))
    dense = np.stack([[index[b, plane[t]] == t for t in range(4)] for b in range(2)]).astype(np.float32)

    shared_points = sample_segments(jnp.asarray(index), points, 4)
    for b in range(2):
        expected = sample_masks(jnp.asarray(dense[b]), jnp.broadcast_to(points[b][None], (4, 20, 2)))
        np.testing.assert_allclose(shared_points[b], expected, atol=1e-6)

    own_points = jnp.asarray(rng.random((8, 20, 2), np.float32))
    rows = np.repeat([0, 1], 4) * 2 + np.tile(plane, 2)
    found = sample_segment(
        jnp.asarray(index.reshape(4, 8, 6)), jnp.asarray(rows), jnp.asarray(np.tile(range(4), 2)), own_points
    )
    np.testing.assert_allclose(found, sample_masks(jnp.asarray(dense.reshape(8, 8, 6)), own_points), atol=1e-6)


@pytest.mark.slow
@settings(max_examples=examples(60))
@given(
    logits=hnp.arrays(np.float32, (2, 12), elements=st.floats(width=32) | st.sampled_from([0.0, 1.0, -1.0])),
    count=st.integers(0, 12),
)
def test_uncertain_points_are_those_nearest_to_zero(logits: np.ndarray, count: int) -> None:
    """To the last bit, whatever the numbers: those that are none come last."""
    weights = np.asarray(uncertain_weights(jnp.asarray(logits), count))
    for row, weight in zip(np.abs(logits).view(np.int32), weights, strict=True):
        last = np.sort(row)[max(count - 1, 0)]
        share = np.float32(count - np.sum(row < last)) / np.float32(np.sum(row == last))
        np.testing.assert_array_equal(weight, np.where(row == last, share, row < last), strict=True)


def test_points_are_uniform_and_their_coordinates_independent() -> None:
    points = np.asarray(uniform_points(jax.random.key(0), (40_000,)))
    assert points.min() > 0
    assert points.max() < 1
    counts, _, _ = np.histogram2d(*points.T, bins=4, range=[[0, 1], [0, 1]])
    np.testing.assert_allclose(counts, 2500, rtol=0.1)
