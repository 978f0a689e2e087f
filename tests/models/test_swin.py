"""Swin's parts that the small goldens cannot show."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oneformer_jax.models.backbones import SwinConfig
from oneformer_jax.models.backbones.swin import DropPath, partition, shift_mask, unpartition

SMALL = SwinConfig(embed_dim=8, depths=(2, 1), num_heads=(1, 2), window_size=4, drop_path_rate=0.0)


@pytest.mark.parametrize(("side", "shift", "size"), [(4, 2, (8, 12)), (7, 3, (21, 14))])
def test_shift_mask_keeps_neighbours_together(side: int, shift: int, size: tuple[int, int]) -> None:
    """A pair is blocked exactly when its pixels lie further apart in the map than a window is wide."""
    y, x = (np.roll(axis, (-shift, -shift), (0, 1)) for axis in np.indices(size))
    y, x = (np.asarray(partition(jnp.asarray(a[None, ..., None], jnp.float32), side))[0, ..., 0] for a in (y, x))
    far = [np.abs(axis[:, :, None] - axis[:, None]) >= side for axis in (y, x)]
    np.testing.assert_array_equal(shift_mask(size, side, shift), far[0] | far[1])


def test_partition_and_back() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 8, 12, 3))
    windows = partition(x, 4)
    assert windows.shape == (2, 6, 16, 3)
    np.testing.assert_array_equal(windows[1, 4].reshape(4, 4, 3), x[1, 4:8, 4:8])
    np.testing.assert_array_equal(unpartition(windows, (8, 12)), x)


def test_any_image_size_and_absolute_positions() -> None:
    config = dataclasses.replace(SMALL, ape=True, pretrain_img_size=32)
    images = jnp.zeros((1, 45, 71, 3))
    run = partial(config.build().init_with_output, deterministic=True)
    maps, variables = jax.eval_shape(run, jax.random.key(1), images)
    assert variables["params"]["absolute_pos_embed"].shape == (1, 8, 8, 8)
    sizes = [(12, 18), (6, 9)]
    assert [maps[f"res{i + 2}"].shape for i in range(2)] == [(1, *s, 8 * 2**i) for i, s in enumerate(sizes)]


@pytest.mark.slow
@pytest.mark.tao(5)
def test_rematerialisation_changes_nothing_but_what_is_kept() -> None:
    """Blocks keep their inputs alone, and draw the same dropout and paths once more."""
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    plain = dataclasses.replace(SMALL, depths=(2,), num_heads=(1,), drop_rate=0.1, drop_path_rate=0.5)
    remat = dataclasses.replace(plain, use_checkpoint=True)
    params = plain.build().init(jax.random.key(1), images, deterministic=True)["params"]
    rngs = {"dropout": jax.random.key(2)}

    def features(config: SwinConfig, params: Any) -> jax.Array:
        return config.build().apply({"params": params}, images, deterministic=False, rngs=rngs)["res2"]

    def gradient(config: SwinConfig) -> Any:
        return jax.jit(jax.grad(lambda params: jnp.sum(features(config, params) ** 2)))(params)

    def kept(config: SwinConfig) -> int:
        _, pullback = jax.eval_shape(partial(jax.vjp, partial(features, config)), params)
        return sum(leaf.size for leaf in jax.tree.leaves(pullback))

    expected, found = gradient(plain), gradient(remat)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5 * largest), found, expected)
    assert kept(remat) < 0.3 * kept(plain)


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    x = jnp.ones((4000, 2, 2, 1))
    y = DropPath(0.25).apply({}, x, deterministic=False, rngs={"dropout": jax.random.key(0)})
    per_sample = np.asarray(y).reshape(4000, 4)
    assert (per_sample == per_sample[:, :1]).all()
    np.testing.assert_allclose(np.unique(per_sample), [0, 1 / 0.75], rtol=1e-6)
    np.testing.assert_allclose(per_sample.mean(), 1.0, atol=0.03)
