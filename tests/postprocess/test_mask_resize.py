import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiers import examples

from oneformer_jax.data.geometry import Geometry, letterbox, short_edge
from oneformer_jax.postprocess.tiles import Tiles, interpolate_rows


def assemble(logits: np.ndarray, geometry: Geometry) -> np.ndarray:
    result = np.full((len(logits), *geometry.original), np.nan, np.float32)
    tiles = Tiles(logits, geometry)
    bounds = tiles.bounds()
    for tile in tiles:
        assert np.isnan(result[:, tile.rows, tile.columns]).all(), "tiles must not overlap"
        shown = tiles.logits(tile, np.arange(len(logits)))
        result[:, tile.rows, tile.columns] = shown.reshape(-1, *tile.shape)
        assert (bounds.low[tile.place] <= shown.min(axis=1)).all()
        assert (bounds.high[tile.place] >= shown.max(axis=1)).all()
    exact = tiles.exact(np.arange(result[0].size))
    assert (abs(result - exact.reshape(result.shape)) <= bounds.blur.max() / 2).all()
    return result


@given(count=st.integers(1, 40), size=st.integers(1, 90), seed=st.integers(0, 99))
def test_one_axis_is_torch_interpolate(count: int, size: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(count, 3))
    expected = F.interpolate(torch.from_numpy(rows.T)[None], size=size, mode="linear", align_corners=False)[0].T
    np.testing.assert_allclose(interpolate_rows(rows, size), expected, atol=1e-12)


@pytest.mark.parametrize(
    "geometry",
    [
        short_edge((107, 143), 96, 160),  # shrinks a little, with padding
        short_edge((240, 320), 96, 160),  # enlarges the prediction beyond one tile
        letterbox((50, 130), (96, 96)),
        Geometry((65, 64), (64, 96), (64, 96)),
        short_edge((1, 9), 32, 64),
    ],
)
def test_tiles_are_the_three_steps(geometry: Geometry, full_size_logits) -> None:
    rng = np.random.default_rng(0)
    height, width = (edge // 4 for edge in geometry.padded)
    logits = rng.normal(scale=8, size=(5, height, width)).astype(np.float32)
    np.testing.assert_allclose(assemble(logits, geometry), full_size_logits(logits, geometry), atol=1e-4)


@settings(max_examples=examples(50))
@given(
    original=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    resized=st.tuples(st.integers(1, 64), st.integers(1, 64)),
    padding=st.tuples(st.integers(0, 31), st.integers(0, 31)),
    stride=st.integers(1, 8),
)
def test_any_geometry_covers_the_image(original, resized, padding, stride, full_size_logits) -> None:
    padded = (resized[0] + padding[0], resized[1] + padding[1])
    geometry = Geometry(original, resized, padded)
    shape = (2, -(-padded[0] // stride), -(-padded[1] // stride))
    logits = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(assemble(logits, geometry), full_size_logits(logits, geometry), atol=1e-4)
