"""The engine of the converters: ordered rules that carry the arrays of a state dict into a parameter tree.

A rule is a pair of name templates, `{field}` standing for a number, and the order of the array's axes on the other
side. The first rule that fits a name decides. Nothing is left over in silence: a name without a rule, a parameter
without a source and a shape that does not fit are errors.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
    MAP = (0, 2, 3, 1)  # (batch, channels, height, width) -> (batch, height, width, channels)


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
    """What became of every name; `absent` are the optional parts that the source does not have."""

    matched: tuple[str, ...]
    skipped: Mapping[str, str]
    absent: tuple[str, ...]


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


def to_params(
    state: StateDict, rules: Sequence[Rule], template: Params, *, optional: Iterable[str] = (), where: str = ""
) -> tuple[Params, Report]:
    """The parameter tree that `state` holds, NumPy arrays in the shapes and dtypes of `template`.

    `template` is a parameter tree of arrays or `jax.ShapeDtypeStruct`. Top-level parts named in `optional` may be
    absent as a whole; the result then lacks them. Raises CheckpointError for names that are missing or unexpected and
    for shapes that do not fit; `where` names the source in its message.
    """
    patterns = [(_pattern(rule.source), rule) for rule in rules]
    expected = {"/".join(path): leaf for path, leaf in flatten_dict(template).items()}
    found: dict[str, dict[int, np.ndarray]] = {}
    counts: dict[str, int] = {}
    matched, skipped, unexpected = [], {}, []
    for name, array in state.items():
        rule, numbers = next(
            ((rule, match.groupdict()) for pattern, rule in patterns if (match := pattern.fullmatch(name))), (None, {})
        )
        if rule is not None and rule.target is None:
            skipped[name] = rule.why
            continue
        target = rule.target.format(**numbers) if rule is not None and rule.target is not None else ""
        if rule is None or target not in expected:
            unexpected.append(name)
            continue
        index, counts[target] = rule.part
        found.setdefault(target, {})[index] = _lay_out(np.asarray(array), rule.layout)
        matched.append(name)

    present = {_top(target) for target in found}
    absent = tuple(part for part in optional if part in template and part not in present)
    wanted = {target: leaf for target, leaf in expected.items() if _top(target) not in absent}
    missing = [target for target in wanted if len(found.get(target, {})) < counts.get(target, 1)]
    complaints = [_list("no values for", missing), _list("unexpected arrays", unexpected)]
    if missing or unexpected:
        raise CheckpointError("; ".join(filter(None, complaints)), where=where, hint=FIT)

    flat = {target: _join(found[target]) for target in wanted}
    misfits = [
        f"{target} {flat[target].shape} instead of {leaf.shape}"
        for target, leaf in wanted.items()
        if flat[target].shape != leaf.shape
    ]
    if misfits:
        raise CheckpointError(_list("shapes that do not fit:", misfits), where=where, hint=FIT)
    tree = unflatten_dict({tuple(k.split("/")): v.astype(wanted[k].dtype, copy=False) for k, v in flat.items()})
    return tree, Report(tuple(matched), skipped, absent)


def _pattern(template: str) -> re.Pattern[str]:
    """Turns `{field}` into a named number; a field that appears twice must be the same number."""
    pieces, seen = [], set()
    for literal, field in re.findall(r"([^{]*)(?:\{(\w+)\})?", template):
        pieces.append(re.escape(literal))
        if field:
            pieces.append(f"(?P={field})" if field in seen else f"(?P<{field}>\\d+)")
            seen.add(field)
    return re.compile("".join(pieces))


def _lay_out(array: np.ndarray, layout: Layout) -> np.ndarray:
    return array.transpose(layout.value) if layout.value and array.ndim == len(layout.value) else array


def _join(parts: dict[int, np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate([parts[i] for i in sorted(parts)], axis=-1)


def _top(target: str) -> str:
    return target.split("/", 1)[0]


def _list(what: str, names: Sequence[str], shown: int = 8) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{what} {', '.join(names[:shown])}{more}" if names else ""
