"""Random words against what uniform and independent draws must show, and dropout against its definition."""

import itertools
import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from oneformer_jax.models.layers import Dropout, random_bits

COUNT = 1 << 20
# The chance that a sound generator fails a test, so small that none of them ever should.
LEVEL = 1e-6


def draw(seed: int, shape: tuple[int, ...] = (COUNT,)) -> np.ndarray:
    return np.asarray(random_bits(jax.random.key(seed), shape))


@pytest.mark.parametrize("shift", [0, 8, 16, 24])
@pytest.mark.parametrize("seed", range(3))
def test_every_byte_is_uniform(seed: int, shift: int) -> None:
    counts = np.bincount((draw(seed) >> shift) & 255, minlength=256)
    assert stats.chisquare(counts).pvalue > LEVEL


@pytest.mark.parametrize("lag", [1, 2, 7, 32, 1024, 16384, 65536])
def test_words_at_a_distance_are_independent(lag: int) -> None:
    words = draw(5)
    pairs = np.bincount((words[:-lag] >> 28) * 16 + (words[lag:] >> 28), minlength=256)
    assert stats.chisquare(pairs).pvalue > LEVEL


def test_words_of_different_keys_are_independent() -> None:
    """Keys of successive steps and layers, at the same position and at a shifted one."""
    keys = [jax.random.fold_in(jax.random.key(0), i) for i in range(4)]
    words = [np.asarray(random_bits(key, (COUNT,))) for key in keys]
    for (a, b), lag in itertools.product(itertools.combinations(words, 2), (0, 1, 512)):
        pairs = np.bincount((a[: COUNT - lag] >> 28) * 16 + (b[lag:] >> 28), minlength=256)
        assert stats.chisquare(pairs).pvalue > LEVEL


@pytest.mark.slow
def test_no_bit_follows_another() -> None:
    """Correlations of all pairs of bits, of one word and of neighbours."""
    words = draw(7)
    bits = np.unpackbits(words.view(np.uint8).reshape(-1, 4), axis=1).astype(np.float32) * 2 - 1
    limit = 6 / COUNT**0.5  # six standard deviations
    within = bits.T @ bits / COUNT
    np.fill_diagonal(within, 0)
    assert np.abs(within).max() < limit
    assert np.abs(bits[:-1].T @ bits[1:] / COUNT).max() < limit


@pytest.mark.slow
def test_words_depend_on_the_position_in_the_array_alone() -> None:
    assert (draw(3, (4, 8, 16)).ravel() == draw(3, (512,))).all()
    assert len(np.unique(draw(3, (COUNT,)))) == COUNT  # a permutation of the positions


SHARDED = """
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from oneformer_jax.models.layers import random_bits

split = NamedSharding(jax.make_mesh((2,), ("data",)), PartitionSpec("data"))
key = jax.random.key(1)
halves = jax.jit(lambda key: random_bits(key, (16, 32)), out_shardings=split)(key)
assert len(halves.sharding.device_set) == 2
assert (np.asarray(halves) == np.asarray(random_bits(key, (16, 32)))).all()
"""


@pytest.mark.slow
def test_devices_draw_their_parts_of_the_same_array() -> None:
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    subprocess.run([sys.executable, "-c", SHARDED], env=environment, check=True)


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return Dropout(0.5, False)(x), Dropout(0.5, False)(x)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.9])
def test_dropout_keeps_the_mean_and_scales(rate: float) -> None:
    x = jnp.ones((64, 4096))
    y = np.asarray(Dropout(rate, False).apply({}, x, rngs={"dropout": jax.random.key(0)}))
    assert set(np.unique(y)) == {0.0, np.float32(1 / (1 - rate))}
    dropped = (y == 0).sum()
    assert stats.binomtest(int(dropped), y.size, rate).pvalue > LEVEL


def test_dropout_at_its_ends() -> None:
    x = jnp.arange(8.0)
    rngs = {"dropout": jax.random.key(0)}
    assert (Dropout(0.0, False).apply({}, x, rngs=rngs) == x).all()
    assert (Dropout(1.0, False).apply({}, x, rngs=rngs) == 0).all()
    assert (Dropout(0.5, True).apply({}, x) == x).all()


def test_each_dropout_draws_its_own_mask() -> None:
    a, b = Twice().apply({}, jnp.ones(4096), rngs={"dropout": jax.random.key(0)})
    assert 0.4 < float(jnp.mean((a > 0) == (b > 0))) < 0.6


def test_the_gradient_meets_the_same_mask() -> None:
    def dropped(x: jax.Array) -> jax.Array:
        return Dropout(0.4, False).apply({}, x, rngs={"dropout": jax.random.key(2)})

    y, pullback = jax.vjp(dropped, jnp.ones(1024))
    assert (pullback(jnp.ones(1024))[0] == y).all()
