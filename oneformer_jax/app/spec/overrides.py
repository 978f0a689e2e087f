"""Overrides of the command line: `key=value`, `+key=value`, `~key`, with values in YAML."""

import re
from typing import Any

import yaml

from oneformer_jax.app.spec.dotted import merge, nested, remove
from oneformer_jax.app.spec.problems import Problem
from oneformer_jax.app.spec.source import Source, parse_value
from oneformer_jax.app.spec.synonyms import SYNONYMS

ASSIGNMENT = re.compile(r"\+{0,2}(?P<key>[^\s=~+][^\s=]*)=(?P<value>.*)", re.DOTALL)
REMOVAL = re.compile(r"~(?P<key>[^\s=]+)")


def apply(source: Source, text: str) -> None:
    """Changes `source` by one override; `+` makes no difference, `~key` takes a key back to its default."""
    place = f"command line: {text}"
    if match := REMOVAL.fullmatch(text):
        remove(source.data, SYNONYMS.get(match["key"], match["key"]))
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
    key = SYNONYMS.get(match["key"], match["key"])
    if blocked := _blocked(source.data, key):
        what = f"{match['key']}: {blocked} is written as a value in the file, not as a section"
        source.problems.append(Problem(what, place, "write the section out, or override it as a whole"))
        return
    merge(source.data, nested(key, value))  # a mapping into the section that is there, as a spec file would be
    _note(source.places, key, value, place)


def _blocked(data: dict[Any, Any], key: str) -> str:
    """The section above a key that holds a plain value or an interpolation, "" when there is none."""
    names = key.split(".")
    for end, name in enumerate(names[:-1], start=1):
        if data.get(name) is None:
            return ""
        data = data[name]
        if not isinstance(data, dict):
            return ".".join(names[:end])
    return ""


def _note(places: dict[str, str], key: str, value: Any, place: str) -> None:
    """Every key that the override sets is found on the command line from now on."""
    places[key] = place
    for end in range(key.count(".")):
        places.setdefault(key.rsplit(".", end + 1)[0], place)
    if isinstance(value, dict):
        for name, element in value.items():
            _note(places, f"{key}.{name}", element, place)
