"""One searched key: the values it may take, and how a trial draws one of them.

Optuna knows a parameter by its *position*: a range or choices that are the same in all trials, which is what its
models need. The *value* of the key follows from the position, and differs from it where the value of another key
bounds this one or where options have weights.
"""

import bisect
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

from oneformer_jax.errors import OneFormerError

Real = int | float
RELATIONS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
LEAST_DISTANCE = 1e-6
"""Between a float and another key's value that it has to exceed, relative to the latter."""


@runtime_checkable
class Suggester(Protocol):
    """What draws positions: a trial of Optuna."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int: ...

    def suggest_categorical(self, name: str, choices: tuple[Any, ...]) -> Any: ...


@dataclass(frozen=True)
class Relation:
    """The value has to be `sign` (> >= < <=) the value of the key `other`."""

    sign: str
    other: str

    def __str__(self) -> str:
        return f"{self.sign} {self.other}"

    def holds(self, value: Real, limit: Real) -> bool:
        return bool(RELATIONS[self.sign](value, limit))


@dataclass(frozen=True)
class Number:
    """A number in [low, high]; `step`: a whole number, low plus a multiple of it."""

    path: str
    low: Real
    high: Real
    log: bool = False
    step: int | None = None
    relation: Relation | None = None

    def value(self, trial: Suggester, values: Mapping[str, Any]) -> Real:
        """Draws the position in `trial`; `values` has those of the keys that this one depends on.

        Raises OneFormerError where the other key leaves no value.
        """
        position: Real
        if self.step is None:
            position = trial.suggest_float(self.path, self.low, self.high, log=self.log)
        else:
            position = trial.suggest_int(self.path, int(self.low), int(self.high), step=self.step)
        if self.relation is None:
            return position
        return self._within(position, self.relation, float(values[self.relation.other]))

    def _within(self, position: Real, relation: Relation, limit: Real) -> Real:
        """The range that the relation leaves, at the same share of it as the position has of the whole range."""
        low, high = self.low, self.high
        distance = (self.step or max(abs(limit), 1.0) * LEAST_DISTANCE) if len(relation.sign) == 1 else 0
        if relation.sign.startswith(">"):
            low = max(low, limit + distance)
        else:
            high = min(high, limit - distance)
        if self.step is not None:  # on the grid
            low = self.low + math.ceil((low - self.low) / self.step) * self.step
            high = self.low + math.floor((high - self.low) / self.step) * self.step
        if low > high:
            raise OneFormerError(
                f"no value in {self.describe()} is {relation.sign} {limit:g}, the value of {relation.other}",
                where=self.path,
                hint="widen its range in automl.custom_param_ranges",
            )
        share = _share(position, self.low, self.high, self.log)
        value = low * (high / low) ** share if self.log else low + share * (high - low)
        if self.step is not None:
            return int(self.low + round((value - self.low) / self.step) * self.step)
        return min(max(value, low), high)

    def nearest(self, value: Any) -> Any:
        """The position that is nearest to `value`."""
        inside = min(max(value, self.low), self.high)
        if self.step is None:
            return float(inside)
        return int(self.low + min(round((inside - self.low) / self.step), self._steps) * self.step)

    @property
    def _steps(self) -> int:
        assert self.step is not None
        return int((self.high - self.low) // self.step)

    def describe(self) -> str:
        """The range in words."""
        notes = ["log"] * self.log + [f"step {self.step}"] * ((self.step or 1) > 1)
        notes += [str(self.relation)] if self.relation else []
        return f"{self.low:g} .. {self.high:g}" + (f" ({', '.join(notes)})" if notes else "")


@dataclass(frozen=True)
class Choice:
    """One of `options`; `weights`: how often each is drawn at random, relative to the others."""

    path: str
    options: tuple[Any, ...]
    weights: tuple[float, ...] = ()
    relation: None = None

    def value(self, trial: Suggester, values: Mapping[str, Any]) -> Any:
        """Draws an option, with weights as a position in [0, 1]."""
        if not self.weights:
            return trial.suggest_categorical(self.path, self.options)
        ends = self._ends()
        index = bisect.bisect_left(ends, trial.suggest_float(self.path, 0.0, 1.0))
        return self.options[next(i for i in range(min(index, len(ends) - 1), -1, -1) if self.weights[i] > 0)]

    def _ends(self) -> list[float]:
        total = sum(self.weights)
        return [end / total for end in accumulate(self.weights)]

    def nearest(self, value: Any) -> Any:
        """The position of the option `value`, of the first one where there is no such option."""
        index = self.options.index(value) if value in self.options else 0
        if not self.weights:
            return self.options[index]
        ends = [0.0, *self._ends()]
        return (ends[index] + ends[index + 1]) / 2

    def describe(self) -> str:
        """The options in words."""
        weights = self.weights or (None,) * len(self.options)
        return ", ".join(
            f"{option}" + (f" ({weight:g})" if weight is not None else "")
            for option, weight in zip(self.options, weights, strict=True)
        )


Parameter = Number | Choice


def _share(position: Real, low: Real, high: Real, log: bool) -> float:
    if high == low:
        return 0.0
    if log:
        return math.log(position / low) / math.log(high / low)
    return (position - low) / (high - low)
