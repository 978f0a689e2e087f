"""Neighbourhood attention: its integers against a loop over pixels, and its values against a dense product."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.published import DINAT
from oneformer_jax.models import ops
from oneformer_jax.models.backbones import BackboneConfig, DinatConfig, SwinConfig
from oneformer_jax.models.backbones.neighbourhood import Borders, cut, neighbourhood_attention


def neighbours(i: int, length: int, kernel: int, dilation: int) -> list[int]:
    """The pixels that pixel i attends to: of those at distances that the dilation divides the `kernel` nearest ones."""
    grid = list(range(i % dilation, length, dilation))
    place = grid.index(i)
    first = place - kernel // 2
    while first < 0:
        first += 1
    while first + kernel > len(grid):
        first -= 1
    return grid[first : first + kernel]


def attended(length: int, kernel: int, dilation: int) -> Iterator[tuple[int, list[int], list[int]]]:
    """Each pixel, what it attends to, and the offsets of those, as the tiles of an axis say."""
    axis = cut(length, kernel, dilation, "shifted")
    tile = axis.queries.shape[1]
    for i in range(length):
        grid, (t, query) = i % dilation, divmod(int(axis.place[i // dilation]), tile)
        assert axis.queries[t, query] == i // dilation
        seen = axis.seen[grid % len(axis.seen), t, query]
        keys = axis.keys[t][seen] * dilation + grid
        order = np.argsort(keys)
        yield i, keys[order].tolist(), axis.offsets[query][seen][order].tolist()


@pytest.mark.parametrize("kernel", [3, 5, 7, 9, 11])
def test_integers(kernel: int) -> None:
    for dilation in range(1, 6):
        for length in range(kernel * dilation, 60):
            for i, keys, offsets in attended(length, kernel, dilation):
                assert keys == neighbours(i, length, kernel, dilation), (length, dilation, i)
                assert offsets == [(key - i) // dilation + kernel - 1 for key in keys], (length, dilation, i)


def dense(q: Any, k: Any, v: Any, table: Any, kernel: int, dilation: int, borders: Borders) -> np.ndarray:
    """One pixel after the other, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    batch, height, width, heads, channels = q.shape
    out, reach = np.zeros_like(q), kernel // 2

    def along(i: int, length: int) -> list[int]:
        if borders == "shifted":
            return neighbours(i, length, kernel, dilation)
        return [i + dilation * (j - reach) for j in range(kernel)]

    for b, y, x, n in np.ndindex(batch, height, width, heads):
        logits, values = [], []
        for row in along(y, height):
            for column in along(x, width):
                inside = 0 <= row < height and 0 <= column < width
                logit = q[b, y, x, n] @ k[b, row, column, n] * channels**-0.5 if inside else 0.0
                if table is not None:
                    logit += table[n, (row - y) // dilation + kernel - 1, (column - x) // dilation + kernel - 1]
                logits.append(logit)
                values.append(v[b, row, column, n] if inside else np.zeros(channels))
        weights = np.exp(logits - np.max(logits))
        out[b, y, x, n] = weights @ np.array(values) / weights.sum()
    return out


Case = tuple[int, int, tuple[int, int], Borders, bool]


def agrees(kernel: int, dilation: int, size: tuple[int, int], borders: Borders, biased: bool) -> None:
    rng = np.random.default_rng(size[0])
    q, k, v = (jnp.asarray(rng.normal(size=(1, *size, 2, 3)), jnp.float32) for _ in range(3))
    table = rng.normal(size=(2, 2 * kernel - 1, 2 * kernel - 1)).astype(np.float32) if biased else None
    attend = partial(neighbourhood_attention, kernel=kernel, dilation=dilation, borders=borders)
    biases = None if table is None else jnp.asarray(table)
    expected = dense(q, k, v, table, kernel, dilation, borders)
    np.testing.assert_allclose(jax.jit(attend)((q, k, v), table=biases), expected, rtol=0, atol=1e-5)

    def in_parts(packed: jax.Array) -> jax.Array:
        """As few of the tiles as can be at a time."""
        with ops.using(ops.Ops(most_logits=1)):
            projected = packed if borders == "shifted" else tuple(packed[..., i, :, :] for i in range(3))
            return attend(projected, table=biases, in_parts=True)

    np.testing.assert_allclose(jax.jit(in_parts)(jnp.stack([q, k, v], axis=-3)), expected, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", [(3, 2, (25, 9), "shifted", True), (5, 1, (15, 30), "zero_padded", False)], ids=str)
def test_values(case: Case) -> None:
    """Several tiles of queries on one axis, of which the last has fewer, and one on the other."""
    agrees(*case)


KERNELS = st.sampled_from([3, 5, 11])
MORE = st.tuples(st.integers(0, 24), st.integers(0, 24))


@pytest.mark.prove
@settings(max_examples=60)
@given(KERNELS, st.integers(1, 4), MORE, st.sampled_from(["shifted", "zero_padded"]), st.booleans())
def test_any_values(kernel: int, dilation: int, more: tuple[int, int], borders: Borders, biased: bool) -> None:
    height, width = (kernel * dilation + extra for extra in more)
    agrees(kernel, dilation, (height, width), borders, biased and borders == "shifted")


@pytest.mark.prove  # `make test`: in parts as few as can be, above
def test_dinat_l_needs_no_more_memory_than_swin_l() -> None:
    """What the compiled forward pass of an image of 1024 by 1024 needs on CPU besides its inputs and results."""

    def temporary(config: BackboneConfig) -> int:
        module, images = config.build(), jax.ShapeDtypeStruct((1, 1024, 1024, 3), jnp.float32)
        small = jnp.zeros((1, 64, 64, 3))
        params = jax.eval_shape(lambda: module.init(jax.random.key(0), small, deterministic=True))
        forward = jax.jit(partial(module.apply, deterministic=True))
        return forward.lower(params, images).compile().memory_analysis().temp_size_in_bytes

    dilations = DINAT["150_16_dinat_l_oneformer_coco_100ep.pth"]
    assert temporary(DinatConfig(kernel_size=11, dilations=dilations)) < temporary(SwinConfig())


def test_a_map_that_is_smaller_than_a_window_is_refused() -> None:
    with pytest.raises(ValueError, match="20 pixels are fewer than the 7 x 3 of a window"):
        cut(20, 7, 3, "shifted")
