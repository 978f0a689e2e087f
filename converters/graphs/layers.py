"""Which layers are quantized to what: `quantize.layers` and `quantize.skip_names` against the layers of a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from converters.onnx.settings import Mode
from oneformer_jax.errors import SpecError

INT8, FP8, FP8_WIDE, NATIVE = "int8", "fp8_e4m3fn", "fp8_e5m2", "native"
ALIASES = {"float8_e4m3fn": FP8, "float8_e5m2": FP8_WIDE}
DTYPES = (INT8, FP8, FP8_WIDE, NATIVE)
EVERYTHING = ("*", INT8)


@dataclass(frozen=True)
class Layer:
    """One that can be quantized: where it is found by `key`, the names that people know it by, and its classes."""

    key: str
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def matches(self, pattern: str) -> bool:
        """Whether a name or a class matches; upper and lower case differ."""
        return any(fnmatchcase(name, pattern) for name in (*self.names, *self.classes))


LINEAR, CONVOLUTION = ("Linear", "Dense"), ("Conv2d", "Conv")
TABLE = "Table"


def chosen_layers(
    layers: Sequence[Layer], rules: Sequence[Mapping[str, Any]], skip_names: Sequence[str], mode: Mode
) -> dict[str, str]:
    """Key of every layer to quantize -> int8, fp8_e4m3fn or fp8_e5m2. Without rules all become int8.

    Raises SpecError: a rule that says nothing usable, a pattern that names no layer, nothing left to quantize.
    """
    parsed = [_rule(rule, mode, f"quantize.layers[{index}]") for index, rule in enumerate(rules)] or [EVERYTHING]
    found: dict[str, str] = {}
    for index, (pattern, dtype) in enumerate(parsed):
        found |= dict.fromkeys(_matching(layers, pattern, f"quantize.layers[{index}].module_name"), dtype)
    for pattern in skip_names:
        found |= dict.fromkeys(_matching(layers, pattern, "quantize.skip_names"), NATIVE)
    chosen = {layer.key: found[layer.key] for layer in layers if found.get(layer.key, NATIVE) != NATIVE}
    if not chosen:
        raise SpecError(
            "leaves nothing to quantize, so no file is written",
            where="quantize.skip_names" if skip_names else "quantize.layers",
            hint="check what the entries name: later ones override earlier ones, and skip_names overrides all",
        )
    return chosen


def _matching(layers: Sequence[Layer], pattern: str, where: str) -> list[str]:
    matched = [layer.key for layer in layers if layer.matches(pattern)]
    if not matched:
        examples = ", ".join(layer.names[0] for layer in layers[:: max(1, len(layers) // 4)])
        classes = ", ".join(dict.fromkeys(name for layer in layers for name in layer.classes))
        hint = f"names are like {examples}; classes are {classes}"
        raise SpecError(f"'{pattern}' names none of the {len(layers)} layers", where=where, hint=hint)
    return matched


def _rule(rule: Mapping[str, Any], mode: Mode, where: str) -> tuple[str, str]:
    """The pattern and the number format of one entry."""
    pattern = rule.get("module_name")
    if not isinstance(pattern, str) or not pattern:
        raise SpecError("no module_name", where=where, hint="give {module_name: ..., weights: {dtype: int8}}")
    if unknown := set(rule) - {"module_name", "weights", "activations"}:
        raise SpecError(f"{', '.join(sorted(unknown))}: unknown key", where=where)
    dtypes = {part: _dtype(rule[part], f"{where}.{part}") for part in ("weights", "activations") if rule.get(part)}
    dtype = dtypes.get("weights", INT8)
    activations = dtypes.get("activations", dtype)
    if mode == "weight_only_ptq" and dtypes.get("activations", NATIVE) != NATIVE:
        hint = "leave it out, or set quantize.mode=static_ptq"
        raise SpecError("weight_only_ptq leaves activations as they are", where=f"{where}.activations", hint=hint)
    if mode == "static_ptq" and activations != dtype:
        raise SpecError(f"is {activations}, weights are {dtype}: they must be equal", where=f"{where}.activations")
    return pattern, dtype


def _dtype(part: Any, where: str) -> str:
    if not isinstance(part, Mapping):
        raise SpecError("expected {dtype: ...}", where=where)
    if other := set(part) - {"dtype"}:
        hint = "ranges are symmetric and per output channel, and found by quantize.algorithm"
        raise SpecError(f"{', '.join(sorted(other))}: not available, only dtype is", where=where, hint=hint)
    dtype = ALIASES.get(part.get("dtype", INT8), part.get("dtype", INT8))
    if dtype not in DTYPES:
        raise SpecError(f"'{dtype}' is not a number format; use one of {', '.join(DTYPES)}", where=f"{where}.dtype")
    return str(dtype)
