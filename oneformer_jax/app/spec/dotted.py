"""Nested data by dotted keys: `train.optim.lr` in `{"train": {"optim": {"lr": 1e-4}}}`."""

from collections.abc import Collection, Mapping
from typing import Any

Data = dict[Any, Any]


def nested(path: str, value: Any) -> Data:
    """Data that holds nothing but `value` at a dotted key."""
    for name in reversed(path.split(".")):
        value = {name: value}
    found: Data = value
    return found


def get(data: Any, path: str) -> Any:
    """The value at a dotted key, None where there is none."""
    for name in path.split("."):
        data = data.get(name) if isinstance(data, dict) else None
    return data


def put(data: Data, path: str, value: Any) -> None:
    """Sets a dotted key in place of what it had; sections are made as needed."""
    *parents, name = path.split(".")
    for parent in parents:
        if not isinstance(data.get(parent), dict):
            data[parent] = {}
        data = data[parent]
    data[name] = value


def remove(data: Data, path: str) -> None:
    """Takes a dotted key out, if it is there."""
    parent, _, name = path.rpartition(".")
    section = get(data, parent) if parent else data
    if isinstance(section, dict):
        section.pop(name, None)


def merge(data: Data, other: Mapping[Any, Any]) -> None:
    """`other` over `data`, section by section."""
    for name, value in other.items():
        if isinstance(value, dict) and isinstance(data.get(name), dict):
            merge(data[name], value)
        else:
            data[name] = value


def flat(data: Mapping[str, Any], leaves: Collection[str], prefix: str = "") -> dict[str, Any]:
    """The values by dotted key; those at `leaves` are whole, even if they are mappings."""
    found: dict[str, Any] = {}
    for name, value in data.items():
        path = prefix + name
        is_section = isinstance(value, Mapping) and path not in leaves
        found |= flat(value, leaves, f"{path}.") if is_section else {path: value}
    return found
