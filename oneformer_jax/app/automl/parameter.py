"""One searched key: the values it may take, and how a trial draws one of them.

Optuna knows a parameter by its *position*: a range or choices that are the same in all trials, which is what its
models need. The *value* of the key follows from the position, and differs from it where the value of another key
bounds this one or where options have weights.
"""

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from oneformer_jax.errors import OneFormerError

if TYPE_CHECKING:
    import optuna

Real = int | float
SIGNS = (">", ">=", "<", "<=")
LEAST_DISTANCE = 1e-6
"""Between a float and another key's value that it has to exceed, relative to the latter."""


@dataclass(frozen=True)
class Relation:
    """The value has to be `sign` (> >= < <=) the value of the key `other`."""

    sign: str
    other: str

    def __str__(self) -> str:
        return f"{self.sign} {self.other}"


@dataclass(frozen=True)
class Number:
    """A number in [low, high]; `step`: a whole number, low plus a multiple of it."""

    path: str
    low: Real
    high: Real
    log: bool = False
    step: int | None = None
    relation: Relation | None = None

    def value(self, trial: "optuna.trial.BaseTrial", values: Mapping[str, Any]) -> Real:
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
        share = self.share(position)
        value = low * (high / low) ** share if self.log else low + share * (high - low)
        if self.step is not None:
            return int(self.low + round((value - self.low) / self.step) * self.step)
        return min(max(value, low), high)

    def nearest(self, value: Any) -> Any:
        """The position that is nearest to `value`."""
        inside = min(max(value, self.low), self.high)
        if self.step is None:
            return float(inside)
        steps = min(round((inside - self.low) / self.step), (self.high - self.low) // self.step)
        return int(self.low + steps * self.step)

    def share(self, position: Real) -> float:
        """How far a position lies from the low end, of the way to the high end: 0 to 1, 0 where there is only one."""
        if self.high == self.low:
            return 0.0
        if self.log:
            return math.log(position / self.low) / math.log(self.high / self.low)
        return (position - self.low) / (self.high - self.low)

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

    def value(self, trial: "optuna.trial.BaseTrial", values: Mapping[str, Any]) -> Any:
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
        notes = [f" ({weight:g})" for weight in self.weights] or [""] * len(self.options)
        return ", ".join(f"{option}{note}" for option, note in zip(self.options, notes, strict=True))


Parameter = Number | Choice
