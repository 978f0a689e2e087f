"""Batches of pictures of one padded size, from lists and from what is made when it is needed."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from oneformer_jax.data.geometry import Geometry
from oneformer_jax.evaluation.batches import in_order

Item = tuple[int, Geometry]


@given(st.lists(st.integers(1, 3), max_size=30), st.integers(1, 4), st.integers(1, 12))
def test_results_come_in_order_from_batches_of_one_size(sizes: list[int], count: int, most: int) -> None:
    batches: list[list[int]] = []
    taken = given_back = 0

    def items() -> Iterator[Item]:
        nonlocal taken
        for number, size in enumerate(sizes):
            taken += 1
            assert taken - given_back <= most
            yield number, Geometry((9, 9), (9, 9), (32 * size, 32))

    def results(batch: list[Item]) -> list[str]:
        batches.append([number for number, _ in batch])
        return [f"result {number}" for number, _ in batch]

    found = []
    for result in in_order(items(), count, results, most):
        found.append(result)
        given_back += 1
    assert found == [f"result {number}" for number in range(len(sizes))]
    assert sorted(number for batch in batches for number in batch) == list(range(len(sizes)))
    for batch in batches:
        assert 1 <= len(batch) <= count
        assert len({sizes[number] for number in batch}) == 1
    if most >= len(sizes):
        for size in (1, 2, 3):
            lengths = [len(batch) for batch in batches if sizes[batch[0]] == size]
            assert sum(length < count for length in lengths) <= 1, "all full, but for the last of a size"
