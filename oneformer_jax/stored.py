"""What programs wrote and read back: JSON that may be damaged, made by hand, or of another version.

Fields that are missing or of another type are named; those that a newer version added are handed back.
"""

import dataclasses
import json
import logging
import types
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from oneformer_jax.errors import DataError, OneFormerError

logger = logging.getLogger(__name__)

TINIEST, LARGEST = 2.0**-126, (2 - 2**-23) * 2.0**127
"""Of float32: what a number that is divided by must reach, and what none may exceed. (NumPy would be slow to start.)"""

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a list",
    dict: "an object",
    type(None): "null",
}


def parse_json(text: str | bytes, *, where: str, error: type[OneFormerError] = DataError) -> Any:
    """The content of JSON text. Raises `error`; NaN and Infinity are no JSON."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise error("not usable JSON: nested too deeply", where=where) from None
    except ValueError as cause:  # of the syntax, of the encoding, of a number with thousands of digits
        raise error(f"not valid JSON: {cause}", where=where) from cause


def read_json(path: Path, *, error: type[OneFormerError] = DataError) -> Any:
    """The content of a JSON file. Raises `error`: missing, unreadable or invalid."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise error("the file does not exist", where=str(path)) from None
    except IsADirectoryError:
        raise error("this is a folder, not a JSON file", where=str(path)) from None
    except OSError as cause:
        raise error(f"cannot be read: {cause.strerror}", where=str(path)) from cause
    return parse_json(content, where=str(path), error=error)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a JSON number")


def stored_fields(
    cls: type,
    content: Any,
    *,
    where: str,
    optional: Collection[str] = (),
    error: type[OneFormerError] = OneFormerError,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a dataclass in a JSON object, as JSON has them, and what else stands there.

    Those that are `optional` may be missing. Raises `error` that names every other field that is missing, and every one
    of another type.
    """
    if not isinstance(content, Mapping):
        raise error(f"found {_kind(content)}, expected an object with the fields of {cls.__name__}", where=where)
    hints = typing.get_type_hints(cls)
    found: dict[str, Any] = {}
    problems = []
    for field in dataclasses.fields(cls):
        if field.name not in content:
            if field.name not in optional:
                problems.append(f"{field.name} is missing")
            continue
        value = found[field.name] = content[field.name]
        if not fits(value, hints[field.name]):
            problems.append(f"{field.name} is {_kind(value)}, expected {_expected(hints[field.name])}")
    if problems:
        raise error("; ".join(problems), where=where, hint="it is damaged, or of another version of this program")
    others = {name: value for name, value in content.items() if name not in hints}
    if others:
        logger.info("%s: fields that this version does not know are left alone: %s", where, ", ".join(map(str, others)))
    return found, others


def fits(value: Any, hint: Any) -> bool:
    """Whether a value of JSON is of the type that a field has; tuples are lists there, and classes objects."""
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if hint is Any:
        return True
    if origin is typing.Annotated:
        return fits(value, arguments[0])
    if origin is typing.Literal:
        return value in arguments and not isinstance(value, bool)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, member) for member in arguments)
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return _is_list(value, len(arguments)) and all(map(fits, value, arguments))
    if origin in (list, tuple):
        return _is_list(value) and all(fits(element, arguments[0]) for element in value if arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        known = isinstance(value, dict)
        return known and all(fits(element, arguments[1]) for element in value.values() if arguments)
    if origin is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if origin is int:
        return type(value) is int
    return isinstance(value, origin) if origin in _WORDS else True


def _is_list(value: Any, length: int | None = None) -> bool:
    return isinstance(value, list | tuple) and length in (None, len(value))


def _kind(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({_WORDS.get(type(value), type(value).__name__)})"


def _expected(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin is typing.Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_expected, arguments))
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)}: {', '.join(map(_expected, arguments))}"
    if origin in (list, tuple) and arguments:
        return f"a list of {_expected(arguments[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping) and arguments:
        return "an object" if arguments[1] is Any else f"an object whose values are {_expected(arguments[1])}"
    return _WORDS.get(origin, "an object")
