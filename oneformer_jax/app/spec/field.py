"""What a key of the spec is: one declaration holds its type, default, bounds, texts and support status.

The loader, the cross-field checks, the list of unsupported keys and everything generated from the spec read these
declarations; nothing about a key is written down twice.

A key has two faces. The accepted one is its annotation and default: what a spec may hold here. The published one is
what TAO's schema and templates say; where it differs, a fact of `Key` holds it, so widening a key leaves it alone.
"""

import math
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.fields import FieldInfo

from oneformer_jax.app.spec.source import at_home

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Paths = str | tuple[str, ...]


def path_list(paths: Paths) -> list[str]:
    """The paths of a key that holds one or several."""
    return [paths] if isinstance(paths, str) else list(paths)


@dataclass(frozen=True)
class SearchRange:
    """Where a search looks for good values of a number, both ends included; `log`: evenly over the logarithm."""

    low: int | float
    high: int | float
    log: bool = False


@dataclass(frozen=True)
class Key:
    """Facts of a key that pydantic has no place for.

    `minimum`, `maximum`, `enum`, `math_cond`, `automl`, `popular` and `required` are those of TAO's published schema.
    A narrower domain that a value has by nature (a count is positive) belongs to the annotation instead.
    `enum` and `published` (the default) are given only where the published face differs from the accepted one,
    `template` where TAO's templates hold yet another default. `tao`: what TAO does with the key, where it is not what
    the description says.
    `search`: where a search looks, in place of published bounds that are none for that purpose; `unsearched`: why it
    leaves the key alone unless somebody names it, though the schema offers it.
    `unset`: what a key means that no spec sets, where its default, written down, means something else.
    `only`: the values that exist here; any other value is refused. `aliases`: other spellings of a choice.
    `honoured`: True, False, or a predicate of the value; when not True, `note` says why.
    `location`: whether it names files or folders; `~` then means the home folder.
    """

    minimum: int | float | None = None
    maximum: int | float | None = None
    enum: tuple[str, ...] = ()
    published: Any = None
    template: Any = None
    tao: str = ""
    unset: str = ""
    math_cond: str = ""
    automl: bool | None = None
    search: SearchRange | None = None
    unsearched: str = ""
    popular: bool = False
    required: bool = False
    extension: bool = False
    honoured: bool | Callable[[Any], bool] = True
    note: str = ""
    only: tuple[Any, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    location: bool = False

    def honours(self, value: Any) -> bool:
        """Whether a run does what `value` of this key asks for."""
        return self.honoured(value) if callable(self.honoured) else self.honoured


def key(default: Any, title: str, description: str, *, pattern: str | None = None, **facts: Any) -> Any:
    """A pydantic field with `default`, both texts, and the facts of `Key`; finite bounds are enforced.

    The title is the published one ("" where there is none), the description is our own.
    """
    meta = Key(**facts)
    low, high = meta.minimum, meta.maximum
    return Field(
        default,
        title=title or None,
        description=description,
        ge=low,
        le=None if high is None or math.isinf(high) else high,
        pattern=pattern,
        json_schema_extra={"key": meta},  # type: ignore[dict-item]
    )


own_key = partial(key, extension=True)
"""A key that TAO's schema does not have."""

location_key = partial(key, location=True)
"""A key that names files or folders."""


def results_folder(**facts: Any) -> Any:
    """The key `results_dir` of an action."""
    text = "Folder for the results of this action; empty: a folder named after the action in <results_dir>."
    return location_key("", "Results directory", text, **facts)


def device_indices(**facts: Any) -> Any:
    """The key `gpu_ids` of an action."""
    text = "Indices of the devices to use, among the visible ones. Takes effect only when changed; num_gpus must then "
    return key((0,), "GPU IDs", text + "agree or be 1.", popular=True, **facts)


def section(kind: type["Section"], description: str, title: str = "") -> Any:
    """A nested section, present with its defaults when the spec does not name it."""
    return Field(default_factory=kind, title=title or None, description=description)


class Section(BaseModel):
    """A frozen group of keys. Unknown keys are refused; lists become tuples."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False, protected_namespaces=()
    )

    @field_validator("*", mode="before")
    @classmethod
    def _read(cls, value: Any, info: Any) -> Any:  # ValidationInfo: a protocol that cannot be checked when run
        """Choices match in any case or by an alias; true and false are not numbers; `~` is the home folder."""
        field = cls.model_fields[str(info.field_name)]
        if is_key(field) and key_of(field).location:
            value = at_home(value)
        kind = tao_type(field.annotation)
        if kind == "categorical" and isinstance(value, str | int) and not isinstance(value, bool):
            aliases = dict(key_of(field).aliases) if is_key(field) else {}
            names = {str(name).casefold(): name for name in typing.get_args(field.annotation)} | aliases
            return names.get(str(value).casefold(), value)
        elements = value if isinstance(value, list | tuple) else [value]
        if kind in ("int", "float", "list") and any(isinstance(element, bool) for element in elements):
            raise ValueError("a truth value is not accepted here")
        return value

    def value(self, path: str) -> Any:
        """The value or section at a dotted path."""
        found: Any = self
        for name in path.split("."):
            found = getattr(found, name)
        return found

    def is_set(self, path: str) -> bool:
        """Whether the file or the command line gives this key a value."""
        parent, _, name = path.rpartition(".")
        return name in (self.value(parent) if parent else self).model_fields_set

    def is_changed(self, path: str) -> bool:
        """Whether this key differs from its default: where two keys say the same thing, the changed one counts."""
        parent, _, name = path.rpartition(".")
        section = self.value(parent) if parent else self
        return bool(getattr(section, name) != type(section).model_fields[name].get_default(call_default_factory=True))


def is_key(field: FieldInfo) -> bool:
    """Whether `field` was declared with `key`."""
    return isinstance(field.json_schema_extra, dict) and "key" in field.json_schema_extra


def key_of(field: FieldInfo) -> Key:
    """The facts of a field declared with `key`."""
    return typing.cast(dict[str, Key], field.json_schema_extra)["key"]


def subsection(field: FieldInfo) -> type[Section] | None:
    """The class of a nested section, None for a plain value."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def plain(value: Any) -> Any:
    """Sections and tuples as dictionaries and lists."""
    if isinstance(value, Section):
        return {name: plain(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, list | tuple):
        return [plain(element) for element in value]
    if isinstance(value, dict):
        return {name: plain(element) for name, element in value.items()}
    return value


def tao_type(annotation: Any) -> str:
    """TAO's name of a type. Of a union the first member counts (`str | tuple[str, ...]` is a string)."""
    annotation = members(annotation)[0]
    if typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    origin = typing.get_origin(annotation) or annotation
    if origin is Literal:
        return "categorical"
    if isinstance(origin, type) and issubclass(origin, dict | Section):
        return "collection"
    return {bool: "bool", int: "int", float: "float", str: "string", tuple: "list"}[origin]


def expected(field: FieldInfo) -> str:
    """The accepted values in words, for an error message."""
    if subsection(field) is not None:
        return "a section"
    if is_key(field) and key_of(field).only:
        return " or ".join(str(plain(value)) for value in key_of(field).only)
    text = " or ".join(_describe(member) for member in members(field.annotation))
    bounds = _bounds(field.metadata)
    patterns = [f"that matches {rule.pattern}" for rule in field.metadata if getattr(rule, "pattern", None)]
    return " ".join([text, " and ".join(dict.fromkeys(bounds)), *patterns]).replace("  ", " ").strip()


def members(annotation: Any) -> list[Any]:
    """The members of a union without None; the annotation itself when it is no union."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return [member for member in typing.get_args(annotation) if member is not type(None)]
    return [annotation]


def _describe(annotation: Any) -> str:
    """One type in words, with the bounds that an element type carries."""
    annotation, *rules = typing.get_args(annotation) if typing.get_origin(annotation) is Annotated else [annotation]
    arguments = typing.get_args(annotation)
    match tao_type(annotation):
        case "categorical":
            return "one of " + ", ".join(str(value) or "(empty)" for value in arguments)
        case "list":
            many = len(arguments) == 2 and arguments[1] is Ellipsis
            return f"a list of {'' if many else f'{len(arguments)} x '}{_describe(arguments[0])}"
        case "collection" if arguments and typing.get_origin(arguments[0]) is Literal:
            return f"a mapping whose keys are among {', '.join(typing.get_args(arguments[0]))}"
        case kind:
            words = {
                "int": "whole number",
                "float": "number",
                "bool": "true or false",
                "string": "text",
                "collection": "mapping",
            }
            return " ".join([words[kind], *_bounds(rules)])


def _bounds(rules: Iterable[Any]) -> list[str]:
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    return [f"{sign} {getattr(rule, name)}" for rule in rules for name, sign in signs.items() if hasattr(rule, name)]
