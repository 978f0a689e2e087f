"""The searched keys: from TAO's schema dialect, our own search ranges and what the spec's `automl` section asks for.

The dialect (of `schemas/train.schema.json`): `automl_enabled`, `minimum`, `maximum`, `enum`, `option_weights`,
`math_cond` ("> x", "/ f": a multiple of f, "^ f": a power of f, "> depends_on") and `depends_on` ("> other.key").
"""

import math
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from oneformer_jax.app.automl.parameter import SIGNS, Choice, Number, Parameter, Real, Relation
from oneformer_jax.app.spec import Spec
from oneformer_jax.app.spec.automl_keys import Automl
from oneformer_jax.app.spec.dotted import nested
from oneformer_jax.app.spec.field import expected, plain
from oneformer_jax.app.spec.source import nearest
from oneformer_jax.app.spec.tree import Leaf, leaves
from oneformer_jax.errors import SpecError

LEAVES = {leaf.path: leaf for leaf in leaves(Spec)}
RANGES = "automl.custom_param_ranges"
WORDS = ("valid_min", "valid_max", "log", "valid_options", "option_weights", "math_cond", "depends_on")
OTHER_ACTIONS = ("distill", "evaluate", "export", "gen_trt_engine", "inference", "prune", "quantize", "automl")
"""Sections that a training does not read: their keys cannot change its metric."""
WIDE = 100.0
"""From this ratio of its ends on a range of floats is searched evenly over the logarithm, unless the key says
otherwise."""

Node = Mapping[str, Any]


def search_space(spec: Spec, schema: Node) -> tuple[Parameter, ...]:
    """What the study varies: each key after those that it depends on.

    Raises SpecError where `automl` names keys or ranges that cannot be searched, or where nothing is left to search.
    """
    reader = _Reader(spec.automl, flatten(schema["properties"]), spec.value, spec.place)
    parameters = [reader.parameter(path) for path in reader.chosen()]
    if not parameters:
        raise SpecError("there is nothing to search", where="automl", hint="name keys in automl.hyperparameters")
    return tuple(_after_their_limits(parameters))


def flatten(properties: Node, prefix: str = "") -> dict[str, Node]:
    """The leaves of a schema by dotted path. (`properties` of TAO's files may hold a list, which is none.)"""
    found: dict[str, Node] = {}
    for name, node in properties.items():
        if isinstance(node, Mapping):
            inner = node.get("properties")
            found |= flatten(inner, f"{prefix}{name}.") if isinstance(inner, Mapping) else {prefix + name: node}
    return found


def left_out(nodes: Mapping[str, Node]) -> dict[str, str]:
    """The keys that the schema offers and that a search leaves alone unless they are named, and why."""
    offered = (path for path, node in nodes.items() if node.get("automl_enabled") is True and path in LEAVES)
    return {path: reason for path in offered if (reason := _no_use(LEAVES[path]) or LEAVES[path].key.unsearched)}


def _no_use(leaf: Leaf) -> str:
    """Why no value of a key can be better than another, "" where one may be."""
    if leaf.path.partition(".")[0] in OTHER_ACTIONS:
        return "training does not read it"
    if leaf.key.honoured is False:
        return f"it is not honoured ({leaf.key.note})"
    choices = typing.get_args(leaf.field.annotation) if leaf.type == "categorical" else ()
    if len(leaf.key.only) == 1 or len(choices) == 1:
        return "it has only one value"
    return ""


@dataclass(frozen=True)
class _Reader:
    """Reads what `automl` asks for against the leaves of the schema (`nodes`); `value` and `place` are those of a
    dotted key of the spec."""

    asked: Automl
    nodes: Mapping[str, Node]
    value: Callable[[str], Any]
    place: Callable[[str], str]

    def _wrong(self, what: str, hint: str = "") -> SpecError:
        return SpecError(what, where=self.place(RANGES), hint=hint)

    def chosen(self) -> list[str]:
        """The keys to search: those of the list, else those that the schema offers; more, fewer, and with a range."""
        section, nodes, ranges = self.asked, self.nodes, self.asked.custom_param_ranges
        for path, custom in ranges.items():
            for word in custom:
                if word not in WORDS:
                    raise self._wrong(f"{RANGES}: {path}: {word} is not one of {', '.join(WORDS)}")
        chosen = list(section.hyperparameters)
        if not chosen:
            alone = left_out(nodes)
            chosen = [path for path in nodes if nodes[path].get("automl_enabled") is True and path not in alone]
            chosen = [path for path in chosen if path.partition(".")[0] not in OTHER_ACTIONS]
        asked = {
            "automl.hyperparameters": section.hyperparameters,
            "automl.add_hyperparameters": section.add_hyperparameters,
            "automl.remove_hyperparameters": section.remove_hyperparameters,
            RANGES: tuple(ranges),
        }
        for key, paths in asked.items():
            for path in paths:
                if path not in nodes or path not in LEAVES:
                    near = nearest(path, [name for name in nodes if name in LEAVES])
                    hint = f"did you mean {near}?" if near else ""
                    raise SpecError(f"{key}: there is no key {path}", where=self.place(key), hint=hint)
                if key != "automl.remove_hyperparameters" and (why := _no_use(LEAVES[path])):
                    raise SpecError(f"{key}: {path} cannot be searched: {why}", where=self.place(key))
        wanted = dict.fromkeys([*chosen, *section.add_hyperparameters, *ranges])
        unknown = [path for path in wanted if path not in LEAVES]
        if unknown:
            raise SpecError(f"the schema offers {unknown[0]}, which is not a key of the spec", where="automl.skill_dir")
        return [path for path in wanted if path not in section.remove_hyperparameters]

    def parameter(self, path: str) -> Parameter:
        """The values that a key may take."""
        node, custom = self.nodes[path], self.asked.custom_param_ranges.get(path, {})
        leaf, kind = LEAVES[path], node.get("type")
        condition = str(custom.get("math_cond", node.get("math_cond", "")) or "")
        if "valid_options" in custom or kind in ("categorical", "ordered", "ordered_int", "enum"):
            return self._choice(leaf, node, custom)
        if kind == "bool":
            return Choice(path, (False, True), self._weights(path, node, custom, 2))
        if kind not in ("int", "integer", "float"):
            what = f"{path} is a {kind}, which is not searched"
            raise SpecError(what, where=self.place("automl"), hint=f"give it valid_options in {RANGES}")
        whole = kind != "float"
        low, high, log = self._interval(leaf, node, custom, whole)
        sign, _, operand = condition.partition(" ")
        if sign == ">" and operand != "depends_on" and _is_number(operand):
            floor = float(operand)
            if low <= floor:
                low = math.floor(floor) + 1 if whole else floor + (high - floor) * 1e-6
        if sign in ("^", "/") and not (_is_number(operand) and float(operand) > 1):
            raise self._wrong(f"{path}: the condition {condition!r} is not '{sign} f' with f > 1")
        if sign == "^":
            return self._powers(leaf, low, high, float(operand), whole)
        relation = self._relation(path, str(custom.get("depends_on", node.get("depends_on", "")) or ""), condition)
        step = None
        if whole:
            step = int(float(operand)) if sign == "/" else 1
            low, high = math.ceil(low / step) * step, math.floor(high / step) * step
        if low > high or (log and low <= 0):
            found = f"{path}: there is no range from {low:g} to {high:g}{' over the logarithm' if log else ''}"
            raise self._wrong(found)
        for end in (low, high):
            self._refuse_unaccepted(leaf, end)
        return Number(path, low, high, log and not whole, step, relation)

    def _interval(self, leaf: Leaf, node: Node, custom: Node, whole: bool) -> tuple[Real, Real, bool]:
        """The ends of the range and its scale: custom ones, else those of this project, else the schema's.

        Where the schema has none or an infinite one, it lies at a tenth or ten times the spec's value (whole numbers:
        at half or twice), as in TAO, but not beyond what the key accepts.
        """
        search = leaf.key.search
        factor = 2 if whole else 10
        now = self.value(leaf.path)
        least, largest = _accepted_interval(leaf)
        own = (None, None) if search is None else (search.low, search.high)
        ends: list[float] = []
        for word, published, mine in zip(("valid_min", "valid_max"), ("minimum", "maximum"), own, strict=True):
            ends_given = (custom.get(word), mine, node.get(published), math.inf)
            given: Any = next(end for end in ends_given if end is not None)
            if isinstance(given, bool) or not isinstance(given, Real) or math.isnan(given):
                raise self._wrong(f"{RANGES}: {leaf.path}: {word} is {given!r}, expected a number")
            if math.isinf(given):
                if not now:
                    what = f"{leaf.path} has no {published} and no value to search around"
                    raise SpecError(what, where=self.place(leaf.path), hint=f"give it {word} in {RANGES}")
                up = (word == "valid_max") == (now > 0)
                given = min(max(now * factor if up else now / factor, least), largest)
            ends.append(float(given))
        low, high = ends
        log = custom.get("log", search.log if search else not whole and low > 0 and high / low >= WIDE)
        return low, high, bool(log)

    def _choice(self, leaf: Leaf, node: Node, custom: Node) -> Choice:
        options = custom.get("valid_options", node.get("enum", leaf.enum))
        if isinstance(options, str):  # as TAO's dataclasses have them
            options = [option.strip() for option in options.split(",")]
        if not options:
            raise self._wrong(f"{leaf.path} has no options", hint=f"give valid_options in {RANGES}")
        for option in options:
            if not isinstance(option, bool | int | float | str):
                raise self._wrong(f"{RANGES}: {leaf.path}: {option!r} is not a plain value")
            self._refuse_unaccepted(leaf, option)
        return Choice(leaf.path, tuple(options), self._weights(leaf.path, node, custom, len(options)))

    def _weights(self, path: str, node: Node, custom: Node, count: int) -> tuple[float, ...]:
        weights = custom.get("option_weights", node.get("option_weights"))
        if weights is None:
            return ()
        numbers = isinstance(weights, list | tuple) and all(_is_number(weight) and weight >= 0 for weight in weights)
        if not numbers or len(weights) != count or not sum(weights) > 0:
            what = f"{path}: option_weights is {weights!r}, expected {count} numbers, none negative and not all 0"
            raise self._wrong(what)
        return tuple(map(float, weights))

    def _powers(self, leaf: Leaf, low: Real, high: Real, factor: float, whole: bool) -> Choice:
        """All powers of a factor in a range, equally likely."""
        first, last = math.log(max(low, 1e-300), factor), math.log(high, factor) if high > 0 else -1e9
        exponents = range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1)
        powers = [int(factor**exponent) if whole else factor**exponent for exponent in exponents]
        powers = [power for power in powers if low <= power <= high]
        if not powers:
            what = f"{leaf.path}: there is no power of {factor:g} from {low:g} to {high:g}"
            raise self._wrong(what)
        return Choice(leaf.path, tuple(powers))

    def _relation(self, path: str, depends_on: str, condition: str) -> Relation | None:
        """`depends_on` is "> other.key", or "other.key" with the sign in math_cond ("> depends_on")."""
        if not depends_on:
            return None
        sign, _, other = depends_on.rpartition(" ")
        sign = sign.strip() or (condition.split(" ")[0] if "depends_on" in condition else "")
        if (
            sign not in SIGNS
            or other not in LEAVES
            or self.value(other) is None
            or LEAVES[other].type not in ("int", "float")
        ):
            what = f"{path}: depends_on is {depends_on!r}, expected one of {' '.join(SIGNS)} and a key with a number"
            raise self._wrong(what)
        return Relation(sign, other)

    def _refuse_unaccepted(self, leaf: Leaf, value: Any) -> None:
        tried = int(value) if leaf.type == "int" and isinstance(value, float) and value.is_integer() else value
        try:
            accepted = Spec.model_validate(nested(leaf.path, tried)).value(leaf.path)
        except ValueError:
            accepted = None
        if accepted is None or (leaf.key.only and plain(accepted) not in map(plain, leaf.key.only)):
            what = f"{leaf.path}: the search would try {value!r}, but the key accepts {expected(leaf.field)}"
            raise SpecError(what, where=self.place(RANGES) or self.place("automl"), hint=f"give it a range in {RANGES}")


def _after_their_limits(parameters: list[Parameter]) -> Iterator[Parameter]:
    """Each key after those that bound it; otherwise in the given order."""
    waiting = {parameter.path: parameter for parameter in parameters}
    while waiting:
        free = [p for p in waiting.values() if p.relation is None or p.relation.other not in waiting]
        if not free:
            raise SpecError(f"{', '.join(waiting)} depend on each other", where=RANGES)
        for parameter in free:
            yield waiting.pop(parameter.path)


def _accepted_interval(leaf: Leaf) -> tuple[Real, Real]:
    """The closed bounds that the key's type and declaration set."""
    rules = leaf.field.metadata
    low = max((rule.ge for rule in rules if getattr(rule, "ge", None) is not None), default=-math.inf)
    high = min((rule.le for rule in rules if getattr(rule, "le", None) is not None), default=math.inf)
    return low, high


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
