"""The packing of pairs, and costs that no solver takes as they are."""

import numpy as np
import pytest

from oneformer_jax.losses.matching import BLOCK, assign, pair_slots


def test_each_segment_gets_its_cheapest_query_when_these_differ() -> None:
    costs = np.full((2, 2, 4, 3), 9.0, np.float32)
    chosen = {(0, 0): [2, 0], (1, 0): [1, 3], (0, 1): [3], (1, 1): [0]}
    for (layer, image), queries in chosen.items():
        for target, query in enumerate(queries):
            costs[layer, image, query, target] = 1
    costs[:, 0, :, 2:] = costs[:, 1, :, 1:] = -100  # padding of the table must not attract a query
    num_segments = np.array([2, 1])

    pairs = assign(costs, num_segments, num_groups=1, slots=pair_slots(num_segments, 1))
    assert pairs.query.shape == (2, 1, 16)
    np.testing.assert_array_equal(pairs.query[:, 0, :2], [[2, 0], [1, 3]])
    np.testing.assert_array_equal(pairs.query[:, 0, BLOCK], [3, 0])
    assert pairs.valid.sum() == 6
    np.testing.assert_array_equal(pairs.image[0, : 2 * BLOCK], [0] * BLOCK + [1] * BLOCK)

    grouped = assign(costs, num_segments, num_groups=2, slots=pair_slots(num_segments, 2))
    np.testing.assert_array_equal(grouped.query[:, 1, 0], [3, 0])
    np.testing.assert_array_equal(grouped.image, 0)


@pytest.mark.parametrize(
    ("counts", "num_groups", "slots"),
    [
        ([0, 0], 1, 16),
        ([8, 8], 1, 16),
        ([9, 8], 1, 24),  # three blocks
        ([17, 8], 1, 32),
        ([33], 1, 48),
        ([49], 1, 64),
        ([65], 1, 96),
        ([97], 1, 128),
        ([129], 1, 192),
        ([33, 1], 2, 48),
    ],
)
def test_the_fullest_group_says_how_many_slots(counts: list[int], num_groups: int, slots: int) -> None:
    assert pair_slots(np.array(counts), num_groups) == slots


def test_costs_that_are_not_numbers() -> None:
    costs = np.zeros((3, 1, 3, 2), np.float32)
    costs[0] = np.nan
    costs[1, 0] = [[np.nan, 1], [1, np.inf], [np.inf, np.nan]]
    costs[2, 0] = [[0, -np.inf], [-np.inf, 0], [np.inf, np.inf]]
    query = assign(costs, np.array([2]), num_groups=1, slots=32).query[:, 0, :2]
    np.testing.assert_array_equal(query, [[-1, -1], [1, 0], [1, 0]])


def test_images_without_segments_and_with_more_segments_than_queries() -> None:
    costs = np.random.default_rng(0).random((1, 2, 2, 3)).astype(np.float32)
    pairs = assign(costs, np.array([0, 3]), num_groups=1, slots=32)
    assert sorted(pairs.query[0, 0, :3]) == [-1, 0, 1]
    assert pairs.valid.sum() == 2
