"""The engine of the converters: ordered rules that carry arrays between a state dict and a parameter tree.

A rule is a pair of name templates, `{field}` standing for a number, and the order of the array's axes on the other
side; it reads both ways. The first rule that fits a name decides. Nothing is left over in silence: a name without a
rule, a parameter without a source and a shape that does not fit are errors.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from oneformer_jax.errors import CheckpointError

StateDict = Mapping[str, np.ndarray]
Params = dict[str, Any]

FIT = "The model configuration must be the one of these weights."


class Layout(Enum):
    """Our order of axes, in terms of PyTorch's."""

    SAME = ()
    LINEAR = (1, 0)  # (out, in) -> (in, out)
    CONV = (2, 3, 1, 0)  # (out, in, height, width) -> (height, width, in, out)
    TRANSPOSED_CONV = (2, 3, 0, 1)  # (in, out, height, width) -> (height, width, in, out)
    MAP = (0, 2, 3, 1)  # (batch, channels, height, width) -> (batch, height, width, channels)
    TOKENS = "tokens"  # (batch, side * side, channels) -> (batch, side, side, channels)

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        """A view in our order. An array of another rank stays as it is: its shape will not fit."""
        if self is Layout.TOKENS:
            side = math.isqrt(array.shape[1]) if array.ndim == 3 else 0
            square = side > 0 and side * side == array.shape[1]
            return array.reshape(array.shape[0], side, side, array.shape[2]) if square else array
        return array.transpose(self.value) if array.ndim == len(self.value) else array

    def to_theirs(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `to_ours`."""
        if self is Layout.TOKENS:
            return array.reshape(array.shape[0], -1, array.shape[-1])
        axes = sorted(range(len(self.value)), key=self.value.__getitem__)
        return array.transpose(axes) if array.ndim == len(axes) else array


@dataclass(frozen=True)
class Rule:
    """Arrays named `source` become the parameter at `target`, whose keys are separated by "/".

    With `part` = (index, count) they are that part of it, along the last axis. Without a target they are left out, for
    the reason `why`.
    """

    source: str
    target: str | None
    layout: Layout = Layout.SAME
    part: tuple[int, int] = (0, 1)
    why: str = ""


@dataclass(frozen=True)
class Report:
    """What became of every name.

    Of the source: `matched`, `skipped` (with the reason), `unexpected`. Of the parameters: `absent` are optional parts
    that the source does not have, `reshaped` those that were adapted or start afresh (with how), `missing` those that
    should have had a source and `misfits` those whose source has another shape. `notes` are sentences for people.
    """

    matched: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    reshaped: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    misfits: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain lists and dictionaries."""
        return {name: dict(x) if isinstance(x, Mapping) else list(x) for name, x in asdict(self).items()}

    def summary(self) -> str:
        """One line of counts: `751 arrays matched, 24 skipped`."""
        counts = {kind: len(names) for kind, names in asdict(self).items() if kind != "notes"}
        others = [f"{count} {kind}" for kind, count in counts.items() if count and kind != "matched"]
        return ", ".join([f"{counts['matched']} arrays matched", *others])

    def lines(self) -> list[str]:
        """The summary, then each kind with its names, those of one reason together and long lists cut."""
        lines = [self.summary()]
        for kind in ("skipped", "reshaped"):
            names_by_reason: dict[str, list[str]] = {}
            for name, reason in getattr(self, kind).items():
                names_by_reason.setdefault(reason, []).append(name)
            lines += [_list(f"{kind} ({reason}):", names) for reason, names in names_by_reason.items()]
        absent = [_list("absent:", self.absent)] if self.absent else []
        return [*lines, *absent, *(f"note: {note}" for note in self.notes), *self.complaints()]

    def complaints(self) -> list[str]:
        """What makes a conversion fail; empty where all is well."""
        misfits = [f"{name} {how}" for name, how in self.misfits.items()]
        lists = [
            _list("no values for", self.missing),
            _list("unexpected arrays", self.unexpected),
            _list("shapes that do not fit:", misfits),
        ]
        return [line for line in lists if line]


class ConversionError(CheckpointError):
    """A source that does not fit. The message names the first culprits, `report` all of them."""

    def __init__(self, report: Report, *, where: str = "", hint: str = FIT) -> None:
        self.report = report
        super().__init__("; ".join(report.complaints()), where=where, hint=hint)


def linear(source: str, target: str, part: tuple[int, int] = (0, 1)) -> list[Rule]:
    """Rules of a linear layer."""
    return [
        Rule(f"{source}.weight", f"{target}/kernel", Layout.LINEAR, part),
        Rule(f"{source}.bias", f"{target}/bias", part=part),
    ]


def conv(source: str, target: str) -> list[Rule]:
    """Rules of a convolution."""
    return [Rule(f"{source}.weight", f"{target}/kernel", Layout.CONV), Rule(f"{source}.bias", f"{target}/bias")]


def norm(source: str, target: str) -> list[Rule]:
    """Rules of a layer or group normalisation."""
    return [Rule(f"{source}.weight", f"{target}/scale"), Rule(f"{source}.bias", f"{target}/bias")]


def fused_attention(source: str, target: str) -> list[Rule]:
    """Rules of PyTorch's multi-head attention, whose three input projections are one array."""
    return [
        Rule(f"{source}.in_proj_weight", f"{target}/in_proj/kernel", Layout.LINEAR),
        Rule(f"{source}.in_proj_bias", f"{target}/in_proj/bias"),
        *linear(f"{source}.out_proj", f"{target}/out_proj"),
    ]


def skip(source: str, why: str) -> Rule:
    """A rule that leaves arrays out on purpose."""
    return Rule(source, None, why=why)


@dataclass(frozen=True)
class Carried:
    """A state dict in our names and layout, before it is held against a parameter tree.

    `arrays` are by path, but for those that lack a part; `names` are the source's of each path; `unknown` are names
    without a rule, or whose place another name has taken.
    """

    arrays: Mapping[str, np.ndarray]
    names: Mapping[str, tuple[str, ...]]
    skipped: Mapping[str, str]
    unknown: tuple[str, ...]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter by its path."""
        return {path: array.shape for path, array in self.arrays.items()}

    def fit(self, template: Params, *, optional: Iterable[str] = (), where: str = "") -> tuple[Params, Report]:
        """The parameter tree in the shapes and dtypes of `template` (arrays or `jax.ShapeDtypeStruct`).

        Parts named in `optional`, paths at any depth, may be absent as a whole; the result then lacks them. Raises
        ConversionError for names that are missing or unexpected and for shapes that do not fit.
        """
        expected = flatten_dict(template, sep="/")
        absent = tuple(
            part
            for part in optional
            if any(within(path, part) for path in expected) and not any(within(path, part) for path in self.names)
        )
        wanted = {path: leaf for path, leaf in expected.items() if not any(within(path, part) for part in absent)}
        report = Report(
            matched=tuple(name for path in self.names if path in expected for name in self.names[path]),
            skipped=self.skipped,
            absent=absent,
            missing=tuple(path for path in wanted if path not in self.arrays),
            unexpected=(*self.unknown, *(n for path in self.names if path not in expected for n in self.names[path])),
            misfits={
                path: f"{self.arrays[path].shape} instead of {leaf.shape}"
                for path, leaf in wanted.items()
                if path in self.arrays and self.arrays[path].shape != leaf.shape
            },
        )
        if report.complaints():
            raise ConversionError(report, where=where)
        flat = {path: self.arrays[path].astype(leaf.dtype, copy=False) for path, leaf in wanted.items()}
        return unflatten_dict(flat, sep="/"), report


def carry_over(state: StateDict, rules: Sequence[Rule]) -> Carried:
    """Applies `rules` to every name of `state`. Arrays are views, where parts need not be joined."""
    patterns = [(_pattern(rule.source), rule) for rule in rules]
    parts: dict[str, dict[int, np.ndarray]] = {}
    names: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    skipped, unknown = {}, []
    for name, array in state.items():
        rule, numbers = _first_match(patterns, name)
        if rule is None:
            unknown.append(name)
            continue
        if rule.target is None:
            skipped[name] = rule.why
            continue
        path, (index, count) = rule.target.format(**numbers), rule.part
        if index in parts.setdefault(path, {}):
            unknown.append(name)
            continue
        parts[path][index], counts[path] = rule.layout.to_ours(np.asarray(array)), count
        names.setdefault(path, []).append(name)
    complete = {path: found for path, found in parts.items() if len(found) == counts[path]}
    return Carried(
        arrays={path: _join(found) for path, found in complete.items()},
        names={path: tuple(found) for path, found in names.items()},
        skipped=skipped,
        unknown=tuple(unknown),
    )


def from_params(params: Params, rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """The state dict of a parameter tree, the inverse of `carry_over`. Arrays are views; what rules skip is left out.

    Raises CheckpointError naming the parameters that no rule carries.
    """
    rules_of: dict[str, list[Rule]] = {}
    for rule in rules:
        if rule.target is not None:
            rules_of.setdefault(rule.target, []).append(rule)
    patterns = [(_pattern(target), group) for target, group in rules_of.items()]
    state, unknown = {}, []
    for path, leaf in flatten_dict(params, sep="/").items():
        array = np.asarray(leaf)
        group, numbers = _first_match(patterns, path)
        if group is None:
            unknown.append(path)
            continue
        for rule in group:
            index, count = rule.part
            part = array if count == 1 else np.split(array, count, axis=-1)[index]
            state[rule.source.format(**numbers)] = rule.layout.to_theirs(part)
    if unknown:
        raise CheckpointError(_list("no name on the other side for", unknown))
    return state


def within(path: str, part: str) -> bool:
    """Whether a parameter lies in a part of the tree, both given by their paths."""
    return path == part or path.startswith(f"{part}/")


def _pattern(template: str) -> re.Pattern[str]:
    """Turns `{field}` into a named number; a field that appears twice must be the same number."""
    pieces, seen = [], set()
    for literal, name in re.findall(r"([^{]*)(?:\{(\w+)\})?", template):
        pieces.append(re.escape(literal))
        if name:
            pieces.append(f"(?P={name})" if name in seen else f"(?P<{name}>\\d+)")
            seen.add(name)
    return re.compile("".join(pieces))


def _first_match(patterns: Sequence[tuple[re.Pattern[str], Any]], name: str) -> tuple[Any, dict[str, str]]:
    for pattern, value in patterns:
        if match := pattern.fullmatch(name):
            return value, match.groupdict()
    return None, {}


def _join(parts: dict[int, np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate([parts[i] for i in sorted(parts)], axis=-1)


def _list(what: str, names: Sequence[str], shown: int = 8) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{what} {', '.join(names[:shown])}{more}" if names else ""
