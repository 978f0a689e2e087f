"""Problems of a data set: collected, and reported together in one error."""

from collections.abc import Iterator
from contextlib import contextmanager

from oneformer_jax.errors import DataError

SHOWN = 20


class Problems:
    """What is wrong, in the order found.

    problems = Problems()
    for entry in entries:
        with problems.collected():
            ...  # may raise DataError
    problems.raise_all()
    """

    def __init__(self) -> None:
        self.errors: list[DataError] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """A DataError inside the block ends the block, not the caller. Problems raised together stay apart."""
        try:
            yield
        except ManyProblems as error:
            self.errors += error.errors
        except DataError as error:
            self.errors.append(error)

    def raise_all(self) -> None:
        """Raises the one error, or `ManyProblems`; returns when there is none."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise ManyProblems(self.errors)


class ManyProblems(DataError):
    """Several errors as one message: the first `SHOWN` with their places, how many more, and each hint once."""

    def __init__(self, errors: list[DataError]) -> None:
        self.errors = errors
        hints = dict.fromkeys(error.hint for error in errors[:SHOWN] if error.hint)
        super().__init__(listing(f"{len(errors)} problems", errors), hint="\n  -> ".join(hints))


def listing(title: str, errors: list[DataError]) -> str:
    """`title` and one line for each of the first `SHOWN` errors, without their hints."""
    lines = [f"{error.where}: {error.what}" if error.where else error.what for error in errors[:SHOWN]]
    more = len(errors) - SHOWN
    return "\n  ".join([title, *lines, *([f"and {more} more"] if more > 0 else [])])
