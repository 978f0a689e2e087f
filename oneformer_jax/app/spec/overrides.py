"""Overrides of the command line: `key=value`, `+key=value`, `~key`, with values in YAML."""

import re
from typing import Any

import yaml

from oneformer_jax.app.spec.problems import Problem
from oneformer_jax.app.spec.source import Source, parse_value
from oneformer_jax.app.spec.synonyms import SYNONYMS

ASSIGNMENT = re.compile(r"\+{0,2}(?P<key>[^\s=~+][^\s=]*)=(?P<value>.*)", re.DOTALL)
REMOVAL = re.compile(r"~(?P<key>[^\s=]+)")


def apply(source: Source, text: str) -> None:
    """Changes `source` by one override; `+` makes no difference, `~key` takes a key back to its default."""
    place = f"command line: {text}"
    if match := REMOVAL.fullmatch(text):
        _remove(source.data, _names(match["key"]))
        return
    match = ASSIGNMENT.fullmatch(text)
    if match is None:
        hint = "write key=value, or ~key to return a key to its default"
        source.problems.append(Problem("not an override", place, hint))
        return
    try:
        value = parse_value(match["value"])
    except (yaml.YAMLError, ValueError):
        hint = "quote text that holds : # [ ] { } or starts with a special character"
        source.problems.append(Problem(f"{match['key']}: the value is not valid YAML", place, hint))
        return
    names = _names(match["key"])
    if blocked := _blocked(source.data, names):
        what = f"{match['key']}: {blocked} is written as a value in the file, not as a section"
        source.problems.append(Problem(what, place, "write the section out, or override it as a whole"))
        return
    _assign(source.data, names, value)
    _note(source.places, ".".join(names), value, place)


def _names(key: str) -> list[str]:
    return SYNONYMS.get(key, key).split(".")


def _blocked(data: dict[Any, Any], names: list[str]) -> str:
    """The section above a key that holds a plain value or an interpolation, "" when there is none."""
    for end, name in enumerate(names[:-1], start=1):
        if data.get(name) is None:
            return ""
        data = data[name]
        if not isinstance(data, dict):
            return ".".join(names[:end])
    return ""


def _assign(data: dict[Any, Any], names: list[str], value: Any) -> None:
    """Sets a value; a mapping is merged into the section that is there, as a spec file would be."""
    *parents, last = names
    for name in parents:
        if not isinstance(data.get(name), dict):
            data[name] = {}
        data = data[name]
    if isinstance(value, dict) and isinstance(data.get(last), dict):
        for name, element in value.items():
            _assign(data[last], [str(name)], element)
    else:
        data[last] = value


def _remove(data: dict[Any, Any], names: list[str]) -> None:
    for name in names[:-1]:
        child = data.get(name)
        if not isinstance(child, dict):
            return
        data = child
    data.pop(names[-1], None)


def _note(places: dict[str, str], key: str, value: Any, place: str) -> None:
    """Every key that the override sets is found on the command line from now on."""
    places[key] = place
    for end in range(key.count(".")):
        places.setdefault(key.rsplit(".", end + 1)[0], place)
    if isinstance(value, dict):
        for name, element in value.items():
            _note(places, f"{key}.{name}", element, place)
