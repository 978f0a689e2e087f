"""Problems of a spec: all are collected, and one error names them all, a line each."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from oneformer_jax.errors import SpecError


@dataclass(frozen=True)
class Problem:
    """What is wrong, `where` it is written and what to do."""

    what: str
    where: str = ""
    hint: str = ""

    def __str__(self) -> str:
        return "".join([self.where and f"{self.where}: ", self.what, self.hint and f"; {self.hint}"])


def raise_all(problems: Sequence[Problem], source: str) -> None:
    """Raises SpecError with all problems, in the order found; returns when there is none."""
    if len(problems) == 1:
        raise SpecError(problems[0].what, where=problems[0].where, hint=problems[0].hint)
    if problems:
        raise SpecError("\n  ".join([f"{len(problems)} problems", *map(str, problems)]), where=source)


def nearest(path: str, known: Sequence[str]) -> str:
    """The known dotted path that `path` most likely means, "" when none is near.

    A misspelt name in the right section comes first, then the right name in the wrong section, then any near path.
    """
    parent, _, name = path.rpartition(".")
    siblings = {other.lower(): other for other in known if other.rpartition(".")[0] == parent}
    found = difflib.get_close_matches(path.lower(), list(siblings), n=1, cutoff=0.0)
    if found and _ratio(name, found[0].rpartition(".")[2]) >= 0.75:
        return siblings[found[0]]
    elsewhere = [other for other in known if other.rpartition(".")[2].lower() == name.lower()]
    if elsewhere:
        return max(elsewhere, key=lambda other: _ratio(path, other))
    return next(iter(difflib.get_close_matches(path, known, n=1, cutoff=0.7)), "")


def _ratio(left: str, right: str) -> float:
    return difflib.SequenceMatcher(None, left.lower(), right.lower()).ratio()
