"""Pictures in batches of one padded size."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from oneformer_jax.data.geometry import Geometry, Size

T = TypeVar("T")
R = TypeVar("R")


def of_one_size(items: Iterable[tuple[T, Geometry]], count: int) -> list[list[tuple[T, Geometry]]]:
    """Batches of images of one padded size, `count` together while there are so many: images wait for others like
    them."""
    waiting: dict[Size, list[tuple[T, Geometry]]] = {}
    batches = []
    for item, geometry in items:
        alike = waiting.setdefault(geometry.padded, [])
        alike.append((item, geometry))
        if len(alike) == count:
            batches.append(waiting.pop(geometry.padded))
    return batches + list(waiting.values())


def filled(items: Sequence[T], count: int) -> list[T]:
    """As many as a batch has, the last one repeated: every batch of one padded size has one shape."""
    return [*items, *[items[-1]] * (count - len(items))]


def in_order(
    items: Iterable[tuple[T, Geometry]],
    count: int,
    results: Callable[[list[tuple[T, Geometry]]], Sequence[R]],
    most: int,
) -> Iterator[R]:
    """One result an item, in their order, from batches as of `of_one_size`; `results` gives those of a batch.

    Items are taken when they are needed: at most `most` of them wait for others of their size, or their results for
    those of earlier ones. Where there are so many, the batch of the earliest one goes as it is.
    """
    waiting: dict[Size, list[tuple[int, tuple[T, Geometry]]]] = {}
    done: dict[int, R] = {}
    next_one = 0

    def run(padded: Size) -> None:
        numbers, batch = zip(*waiting.pop(padded), strict=True)
        done.update(zip(numbers, results(list(batch)), strict=True))

    for number, item in enumerate(items):
        padded = item[1].padded
        alike = waiting.setdefault(padded, [])
        alike.append((number, item))
        if len(alike) == count:
            run(padded)
        if number + 1 - next_one >= most and next_one not in done:
            run(next(iter(waiting)))
        while next_one in done:
            yield done.pop(next_one)
            next_one += 1
    while waiting:
        run(next(iter(waiting)))
    for _, result in sorted(done.items(), key=lambda pair: pair[0]):
        yield result
